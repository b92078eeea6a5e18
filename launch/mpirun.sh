#!/bin/bash
# mpirun.sh: starts a QUEST-Train program on several ranks: on this machine, on the hosts of a file, in a Slurm job.
#   launch/mpirun.sh [-n RANKS] [--hostfile F] [--threads T] [--bind core|none] [--oversubscribe] [--dry-run] [--] PROGRAM ARGUMENT...
#   launch/mpirun.sh -n 2 quest-train configs/demo.yaml
#
#   -n RANKS         in all; by default one a GPU where GPUs are visible, else one a core; with a hostfile one a slot,
#                    in a Slurm job one a task
#   --hostfile F     lines "HOST slots=RANKS", reached with ssh; the same paths must exist on every host
#   --threads T      threads a rank; default: OMP_NUM_THREADS where set, else a host's cores divided by its ranks
#   --bind core      binds each rank to T cores of its own, in order (default where there are enough); none: no binding
#   --oversubscribe  allows more ranks than cores or slots without a warning
#   --dry-run        prints the mpirun command and stops
#
# PROGRAM without a slash is looked for in this checkout's build/bin, beside this installation, then on PATH.
# Passed on to every rank: PATH, LD_LIBRARY_PATH and all that begins with OMP_, NCCL_, CUDA_, GPUSIM_, DNNL_, QUEST_.
# ctrl-C or SIGTERM asks the ranks to stop at the end of their step, with a checkpoint (mpirun itself would kill them
# after a second, so this script sends SIGUSR1, which mpirun passes on); a second one ends them at once.
set -euo pipefail

fail() {
    echo "error: mpirun.sh: $*" >&2
    exit 2
}
usage() { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; }

need_value() { [ "$2" -gt 1 ] || fail "$1: a value is missing"; }
need_whole_number() { [[ $2 =~ ^[1-9][0-9]{0,5}$ ]] || fail "$1: '$2' is not a positive whole number"; }

# ---- options ----
ranks='' hostfile='' threads=${OMP_NUM_THREADS:-} bind=${QUEST_BIND:-core} oversubscribe=false dry_run=false
while [ $# -gt 0 ]; do
    option=$1
    case $option in
    -n | -np | --hostfile | --threads | --bind)
        need_value "$option" $#
        case $option in
        -n | -np) need_whole_number "$option" "$2" && ranks=$2 ;;
        --threads) need_whole_number "$option" "$2" && threads=$2 ;;
        --hostfile) hostfile=$2 ;;
        --bind) bind=$2 ;;
        esac
        shift 2
        ;;
    --oversubscribe) oversubscribe=true && shift ;;
    --dry-run) dry_run=true && shift ;;
    -h | --help) usage && exit 0 ;;
    --) shift && break ;;
    -*) fail "unknown option '$option' (launch/mpirun.sh --help lists them)" ;;
    *) break ;;
    esac
done
[ $# -gt 0 ] || fail "no program given (launch/mpirun.sh --help shows how)"
[[ $bind =~ ^(core|none)$ ]] || fail "--bind: '$bind' is neither core nor none"
[ -z "$hostfile" ] || [ -r "$hostfile" ] || fail "--hostfile: cannot read '$hostfile'"
# In a bundle (launch/bundle) mpirun lies beside the programs, and another Open MPI would not fit them.
bundle=$(readlink -f "$(dirname "$(readlink -f "$0")")/../../..")
[ ! -e "$bundle/libexec/start.sh" ] || export PATH=$bundle/bin:$PATH
command -v mpirun >/dev/null || fail "Open MPI's mpirun is not installed (launch/install-deps installs it)"

# ---- the program, as an absolute path: other hosts have another PATH ----
find_program() {
    local here candidate
    here=$(dirname "$(readlink -f "$0")")
    for candidate in "$here/../build/bin/$1" "$here/../../../bin/$1" "$(type -P "$1" || true)"; do
        [ ! -x "$candidate" ] || { readlink -f "$candidate" && return; }
    done
    return 1
}
if [[ $1 == */* ]]; then
    [ -x "$1" ] || fail "cannot run '$1'"
    program=$(readlink -f "$1")
else
    program=$(find_program "$1") || fail "'$1' is neither in build/bin nor on PATH (make builds it)"
fi
shift

# ---- where the ranks go: `ranks` in all, `ranks_here` on the fullest host, `cores` of one host ----
physical_cores() { # of those that this process may use; hardware threads of one core count once
    local allowed cores
    allowed=$(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc) # which would obey them
    cores=$(lscpu -p=Core,Socket 2>/dev/null | grep -v '^#' | sort -u | wc -l)
    echo $((cores > 0 && cores < allowed ? cores : allowed))
}
visible_gpus() {
    if [ -n "${CUDA_VISIBLE_DEVICES+set}" ]; then
        # as CUDA reads it: numbers or UUIDs, up to the first that is negative
        tr ',' '\n' <<<"$CUDA_VISIBLE_DEVICES" | sed '/^[[:space:]]*-/,$d' | grep -c '[^[:space:]]' || true
    elif [ -n "${GPUSIM_DEVICES:-}" ]; then
        echo "$GPUSIM_DEVICES"
    else
        { nvidia-smi -L 2>/dev/null || true; } | grep -c '^GPU ' || true
    fi
}
hostfile_slots() { # "TOTAL LARGEST": a host without slots= has as many as it has cores, taken to be as here
    awk -v cores="$cores" '/^[[:space:]]*(#|$)/ { next }
        { slots = cores; for (i = 2; i <= NF; i++) if ($i ~ /^slots=[0-9]+$/) slots = substr($i, 7)
          total += slots; if (slots > largest) largest = slots }
        END { print total + 0, largest + 0 }' "$hostfile"
}

cores=$(physical_cores)
if [ -n "${SLURM_JOB_ID:-}" ] && [ -z "$hostfile" ]; then
    # SLURM_TASKS_PER_NODE: "4(x2),3"; SLURM_CPUS_ON_NODE: what the job may use of this node
    ranks=${ranks:-${SLURM_NTASKS:-${SLURM_JOB_NUM_NODES:-1}}}
    slots=${SLURM_NTASKS:-$ranks}
    ranks_here=$(tr ',' '\n' <<<"${SLURM_TASKS_PER_NODE:-$ranks}" | sed 's/(.*//' | sort -n | tail -n 1)
    cores=${SLURM_CPUS_ON_NODE:-$cores}
    threads=${threads:-${SLURM_CPUS_PER_TASK:-}}
    local_only=false
elif [ -n "$hostfile" ]; then
    read -r slots ranks_here < <(hostfile_slots)
    [ "$slots" -gt 0 ] || fail "--hostfile: '$hostfile' names no host (lines 'HOST slots=RANKS' are expected)"
    ranks=${ranks:-$slots}
    local_only=false
else
    gpus=$(visible_gpus)
    ranks=${ranks:-$((gpus > 0 ? gpus : cores))}
    slots=$cores
    ranks_here=$ranks
    local_only=true
fi
ranks_here=$((ranks_here < ranks ? ranks_here : ranks))
threads=${threads:-$((cores > ranks_here ? cores / ranks_here : 1))}

# ---- the command ----
arguments=(-n "$ranks")
[ -z "$hostfile" ] || arguments+=(--hostfile "$hostfile")
if $local_only; then
    # mpirun's banners would follow the program's own message; with other hosts they are needed when ssh or srun fails.
    arguments+=(--quiet)
fi
if [ "$ranks" -gt "$slots" ]; then
    $oversubscribe || echo "warning: mpirun.sh: $ranks ranks on $slots $($local_only && echo cores || echo slots): they will wait for each other" >&2
    arguments+=(--oversubscribe)
fi
if [ "$bind" = core ] && [ $((ranks_here * threads)) -le "$cores" ] && [ "$ranks" -le "$slots" ]; then
    arguments+=(--map-by "slot:PE=$threads" --bind-to core)
else
    arguments+=(--bind-to none)
fi
export OMP_NUM_THREADS=$threads
for name in $(compgen -e | grep -E '^(PATH|LD_LIBRARY_PATH|(OMP|NCCL|CUDA|GPUSIM|DNNL|QUEST)_.*)$'); do
    arguments+=(-x "$name")
done
if [ "$(id -u)" = 0 ]; then # containers run as root, and mpirun refuses that unless told twice
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
if ! grep -q '^Seccomp:[[:space:]]*0' /proc/self/status; then
    # A container's system-call filter may forbid process_vm_readv; Open MPI then warns on every large message.
    export OMPI_MCA_btl_vader_single_copy_mechanism=${OMPI_MCA_btl_vader_single_copy_mechanism:-none}
fi
if $dry_run; then
    echo "OMP_NUM_THREADS=$threads mpirun ${arguments[*]} $program $*"
    exit 0
fi

# ---- run, turning signals into SIGUSR1 ----
set -m # mpirun in a process group of its own: the terminal's ctrl-C reaches this script only
mpirun "${arguments[@]}" "$program" "$@" </dev/null &
job=$!
signals=0
# shellcheck disable=SC2317 # called by trap
on_signal() {
    interrupted=true
    signals=$((signals + 1))
    if [ "$signals" = 1 ]; then
        echo "mpirun.sh: asking the ranks to stop at the end of this step; once more ends them at once" >&2
        kill -USR1 "$job" 2>/dev/null || true
    else
        kill -TERM "$job" 2>/dev/null || true
    fi
}
trap on_signal INT TERM HUP
while :; do # a trapped signal ends `wait` early
    interrupted=false
    wait "$job" && status=0 || status=$?
    $interrupted || break
done
if $local_only && [ "$status" -gt 128 ] && [ "$signals" = 0 ]; then
    signal=$(kill -l $((status - 128)) 2>/dev/null || echo "$((status - 128))")
    echo "error: a rank of $(basename "$program") was ended by signal $signal" \
        "$([ "$signal" = KILL ] && echo '(out of memory?) ')and the others with it; quest-train --resume goes on from the last checkpoint" >&2
fi
exit "$status"
