# shellcheck shell=bash
# A Slurm cluster of two nodes on this host, in a folder of its own: munged, slurmctld and two slurmd under the node
# names n0 and n1, on ports of their own. Sourced by slurm.bats; everything it starts is ended by slurm_stop.
#   slurm_start DIR     starts it and exports SLURM_CONF
#   slurm_stop DIR      ends it, whatever state it is in

# Four ports in a row that nothing listens on. Not handed out by the kernel: below the ephemeral range.
slurm_free_port() {
    local port
    for port in $(shuf -i 10000-30000 -n 50); do
        ss -Hltn "( sport >= :$port and sport < :$((port + 4)) )" | grep -q . || { echo "$port" && return; }
    done
    echo "error: no free port for Slurm" >&2
    return 1
}

slurm_start() {
    local directory=$1 port host cores
    mkdir -p "$directory"/{munge,state,spool.n0,spool.n1,log}
    chmod 700 "$directory/munge"
    port=$(slurm_free_port)
    host=$(hostname -s)
    cores=$(nproc)
    dd if=/dev/urandom of="$directory/munge/key" bs=1024 count=1 status=none
    chmod 400 "$directory/munge/key"
    cat >"$directory/slurm.conf" <<CONF
ClusterName=quest
SlurmctldHost=$host(127.0.0.1)
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
SlurmctldPort=$port
StateSaveLocation=$directory/state
SlurmdSpoolDir=$directory/spool.%n
SlurmctldPidFile=$directory/slurmctld.pid
SlurmdPidFile=$directory/slurmd.%n.pid
SlurmctldLogFile=$directory/log/slurmctld
SlurmdLogFile=$directory/log/slurmd.%n
AuthType=auth/munge
AuthInfo=socket=$directory/munge/socket
CryptoType=crypto/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SchedulerParameters=batch_sched_delay=0,sched_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobRequeue=1
KillWait=5
NodeName=n0 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 1)) CPUs=$cores State=UNKNOWN
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 2)) CPUs=$cores State=UNKNOWN
PartitionName=main Nodes=n0,n1 Default=YES MaxTime=INFINITE State=UP
CONF
    export SLURM_CONF=$directory/slurm.conf
    /usr/sbin/munged --force --key-file="$directory/munge/key" --socket="$directory/munge/socket" \
        --pid-file="$directory/munge/pid" --log-file="$directory/log/munged" --seed-file="$directory/munge/seed"
    /usr/sbin/slurmctld -c
    /usr/sbin/slurmd -N n0
    /usr/sbin/slurmd -N n1
    for _ in $(seq 100); do
        [ "$(sinfo -h -N -t idle -o %N 2>/dev/null | sort -u | wc -l)" = 2 ] && return
        sleep 0.2
    done
    echo "error: the nodes did not come up" >&2
    tail -n 20 "$directory"/log/* >&2
    return 1
}

slurm_stop() {
    local directory=$1 pid file
    [ -e "$directory/slurm.conf" ] || return 0
    export SLURM_CONF=$directory/slurm.conf
    timeout 10 scancel --user="$(id -un)" 2>/dev/null || true
    for _ in $(seq 50); do
        [ -z "$(timeout 5 squeue -h 2>/dev/null)" ] && break
        sleep 0.2
    done
    for file in "$directory"/slurmd.n0.pid "$directory"/slurmd.n1.pid "$directory"/slurmctld.pid "$directory"/munge/pid; do
        [ -s "$file" ] || continue
        pid=$(cat "$file")
        kill "$pid" 2>/dev/null || continue
        for _ in $(seq 50); do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.1
        done
        kill -9 "$pid" 2>/dev/null || true
    done
}
