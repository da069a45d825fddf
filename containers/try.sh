#!/usr/bin/env bash
# From a bare Debian 12 to the demo cohort's per-slide steps inside the image of every rule:   containers/try.sh [FOLDER]
# As root; needs Debian's packages and PyPI only, no image registry. 30 GB of disk.
set -euo pipefail
work=$(realpath -m "${1:-results/container}")
cd "$(dirname "$0")/.."
mkdir -p "$work/tmp"
export DEBIAN_FRONTEND=noninteractive
say() { printf '\n%s  %s\n' "$(date +%T)" "$*"; }

# Podman keeps its images in our folder; the machine's own are left alone
export CONTAINERS_STORAGE_CONF=$work/storage.conf
printf '[storage]\ndriver = "overlay"\ngraphroot = "%s"\nrunroot = "%s"\n' "$work/store" "$work/run" >"$work/storage.conf"

say "Debian's Podman"
apt-get update -qq
apt-get install -qq --no-install-recommends podman buildah mmdebstrap uidmap patchelf >"$work/apt.log"

# Apptainer is in Debian unstable only. Its files are laid down here with the C library they were built for beside them.
apptainer_of_unstable() {
    local apt=$work/apt lib=/opt/apptainer-libs mirror options
    mirror=$(apt-get indextargets --format '$(REPO_URI)' | grep -v security | head -n 1)
    mkdir -p "$apt"/{lists,cache/archives}/partial "$apt/debs"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror unstable main" >"$apt/sources.list"
    options=(-qq -o APT::Sandbox::User=root -o "Dir::Etc::sourcelist=$apt/sources.list" -o Dir::Etc::sourceparts=-
        -o "Dir::State::lists=$apt/lists" -o "Dir::Cache=$apt/cache")
    apt-get "${options[@]}" update
    (cd "$apt/debs" && apt-get "${options[@]}" download apptainer libc6 libseccomp2 libsqlite3-0)
    mkdir -p "$lib" /var/lib/apptainer/mnt/session
    for package in "$apt"/debs/lib*.deb; do dpkg-deb -x "$package" "$lib"; done
    dpkg-deb -x "$apt"/debs/apptainer_*.deb /
    for program in /usr/bin/apptainer /usr/lib/x86_64-linux-gnu/apptainer/bin/starter; do
        patchelf --set-interpreter "$lib/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2" \
            --force-rpath --set-rpath "$lib/usr/lib/x86_64-linux-gnu" "$program"
    done
}
apptainer version >/dev/null 2>&1 || { say "Debian unstable's Apptainer" && apptainer_of_unstable; }
export TMPDIR=$work/tmp
export APPTAINER_NO_PRIVS=1 # root inside a container of the machine has not all privileges to give away

say "a base image of Debian's packages, in place of python:3.11-slim-bookworm"
if ! podman image exists localhost/debian-python; then
    mmdebstrap --quiet --variant=minbase --include=python3-venv,python-is-python3,ca-certificates bookworm "$work/base.tar"
    podman import --quiet --change 'ENV PATH=/usr/local/bin:/usr/bin:/bin' "$work/base.tar" localhost/debian-python
    rm "$work/base.tar"
fi

say "the image"
# pip goes by this machine's certificates; further options of `podman build` are taken from the command line
certificates=/etc/ssl/certs/ca-certificates.crt
podman build --build-arg BASE=localhost/debian-python --isolation chroot --network host \
    --volume "$certificates:$certificates:ro" "${@:2}" --file containers/Dockerfile --tag localhost/glomerulearn . \
    >"$work/build.log" 2>&1 || { tail "$work/build.log" && exit 1; }
podman images

say "the demo cohort in it"
# Apptainer takes the image as Podman mounts it, which spares copies of 7 GB, but not what the Dockerfile says of PATH
image=$(podman image mount localhost/glomerulearn)
export APPTAINERENV_PATH=/opt/glomerulearn/bin:/usr/bin:/bin
# outside there is Snakemake alone: its packages can be seen from inside, and must not stand in for those of the image
python3 -m venv "$work/snakemake"
"$work/snakemake/bin/python" -m pip install --quiet --constraint requirements.txt snakemake jsonschema pyyaml
"$work/snakemake/bin/snakemake" --cores 2 --directory "$work/study" --sdm apptainer --apptainer-args "--bind $PWD" \
    --config container="$image" 'segmentation={segmenters: [unet]}' 'embedding={extractors: [efficientnet]}' \
    -- detection grading
test -s "$work/study/results/glomeruli.csv"
say "done: $work/study/results/glomeruli.csv"
