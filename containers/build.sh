#!/usr/bin/env bash
# Build the image that every rule can run in (docs/environments.md):
#   containers/build.sh [TARGET [OPTION...]]
# TARGET: glomerulearn.sif by default; with a slash at its end an unpacked folder, which needs no loop or FUSE device.
# OPTION: for `podman build`, such as --build-arg BASE=... where no image registry can be reached.
set -euo pipefail
target=$(realpath -m "${1:-glomerulearn.sif}")
sandbox=()
if [[ ${1:-} == */ ]]; then sandbox=(--sandbox); fi
shift $(($# > 0))
cd "$(dirname "$0")/.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

podman build "$@" --file containers/Dockerfile --tag localhost/glomerulearn .
# a folder, and nothing compressed: the image has 7 GB, and passes through two programs
podman save --quiet --uncompressed --format oci-dir --output "$scratch/image" localhost/glomerulearn
apptainer build --force "${sandbox[@]}" "$target" "oci:$scratch/image"
