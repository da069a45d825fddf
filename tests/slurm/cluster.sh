#!/usr/bin/env bash
# A SLURM cluster on this machine for the tests: one slurmctld and several slurmd on loopback, as root, without systemd.
#   cluster.sh start FOLDER [NODES [CPUS [MEM_MB [GPUS]]]]   all state lives in FOLDER; GPUS: make-believe ones on node n1
#   cluster.sh stop FOLDER
# It installs Debian's packages where they are missing, and says what failed.
set -euo pipefail

fail() { echo "cluster.sh: $*" >&2; exit 1; }
await() { # SECONDS WHAT COMMAND...
    local seconds=$1 what=$2; shift 2
    for ((i = 0; i < seconds * 5; i++)); do "$@" &>/dev/null && return; sleep 0.2; done
    tail -n 5 "$state"/*.log >&2 || true
    fail "$what: not after $seconds s"
}

action=${1:?start or stop} state=${2:?a folder}
nodes=${3:-2} cpus=${4:-2} mem_mb=${5:-6000} gpus=${6:-0}

if [ "$action" = stop ]; then
    for file in "$state"/*.pid; do
        [ -s "$file" ] || continue
        pid=$(cat "$file")
        # a process that took the number of a dead daemon is not ours
        case $(cat "/proc/$pid/comm" 2>/dev/null) in slurm* | munged) ;; *) continue ;; esac
        kill "$pid" && await 10 "end of $pid" sh -c "! kill -0 $pid"
    done
    if [ "$(readlink /etc/slurm/slurm.conf)" = "$state/slurm.conf" ]; then
        rm -f /etc/slurm/slurm.conf /etc/slurm/gres.conf
    fi
    exit
fi

[ "$(id -u)" = 0 ] || fail "slurmd runs jobs for other users and must be started as root; this is $(id -un)"
missing=$(for program in slurmctld slurmd munged; do command -v $program >/dev/null || echo $program; done)
if [ "$missing" ]; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq >/dev/null 2>&1 || true # where the lists are fresh enough, the next line works all the same
    log=$(apt-get install -y -qq --no-install-recommends slurm-wlm munge 2>&1) || fail "apt-get install slurm-wlm munge: $log"
fi
if [ -e /etc/slurm/slurm.conf ] && [ ! -L /etc/slurm/slurm.conf ]; then
    fail "/etc/slurm/slurm.conf exists: this machine belongs to a cluster already, and is left alone"
fi
if scontrol ping 2>/dev/null | grep -q "is UP"; then
    fail "the cluster of $(readlink -f /etc/slurm/slurm.conf) is running on this machine; stop it first"
fi
mkdir -p "$state"/{controller,spool} /etc/slurm

if ! munge -n </dev/null 2>/dev/null | unmunge &>/dev/null; then
    install -d -o munge -g munge /run/munge /var/lib/munge /var/log/munge /etc/munge
    if [ ! -s /etc/munge/munge.key ]; then (umask 077 && head -c 1024 /dev/urandom >/etc/munge/munge.key); fi
    chown munge:munge /etc/munge/munge.key
    runuser -u munge -- munged
    await 10 munged sh -c 'munge -n </dev/null | unmunge'
    cp /run/munge/munged.pid "$state/munged.pid"
fi

# Memory is held to what a job asked for by watching it, as there are no cgroups here. `record` is SLURM's own account of
# every job that ended; without a data base behind it `sacct` knows nothing.
{
    cat <<CONF
ClusterName=test
SlurmctldHost=$(hostname)(127.0.0.1)
SlurmctldPort=26817
SlurmUser=root
AuthType=auth/munge
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation=$state/controller
SlurmctldPidFile=$state/slurmctld.pid
SlurmctldLogFile=$state/slurmctld.log
SlurmdPidFile=$state/slurmd.%n.pid
SlurmdLogFile=$state/slurmd.%n.log
SlurmdSpoolDir=$state/spool/%n
SlurmdParameters=config_overrides
MpiDefault=none
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=1,bf_interval=1
KillWait=2
MinJobAge=3600
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherParams=OverMemoryKill
JobAcctGatherFrequency=task=1
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc=$state/record
GresTypes=gpu
CONF
    for ((i = 1; i <= nodes; i++)); do
        gres=
        if [ "$i" = 1 ] && [ "$gpus" -gt 0 ]; then gres=" Gres=gpu:$gpus"; fi
        echo "NodeName=n$i NodeHostname=localhost NodeAddr=127.0.0.1 Port=$((27000 + i)) CPUs=$cpus RealMemory=$mem_mb$gres"
    done
    # longer than any job of the workflow asks for: a job above its partition's limit waits for ever
    echo "PartitionName=main Nodes=ALL Default=YES MaxTime=30-0 State=UP"
} >"$state/slurm.conf"
: >"$state/gres.conf"
for ((i = 0; i < gpus; i++)); do
    [ -e "$state/gpu$i" ] || mknod "$state/gpu$i" c 1 3
    echo "NodeName=n1 Name=gpu File=$state/gpu$i" >>"$state/gres.conf"
done
# jobs do not inherit SLURM_CONF from Snakemake, so it must lie where SLURM looks by itself
ln -sfn "$state/slurm.conf" /etc/slurm/slurm.conf
ln -sfn "$state/gres.conf" /etc/slurm/gres.conf

slurmctld
await 20 slurmctld sh -c 'scontrol ping | grep -q "is UP"'
for ((i = 1; i <= nodes; i++)); do
    mkdir -p "$state/spool/n$i"
    slurmd -N "n$i"
done
await 20 "$nodes idle nodes" sh -c "[ \$(sinfo -hN -o %T | grep -c idle) = $nodes ]"
sinfo -hN -o "%N %c CPUs %m MB %G %T"
