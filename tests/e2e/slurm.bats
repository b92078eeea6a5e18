# launch/slurm/train.sbatch for real: munge, slurmctld and two slurmd under two node names on this host.
load helpers
. "$BATS_TEST_DIRNAME/slurm_cluster.sh"

missing() { # why there can be no cluster here; nothing where there can. (A skip in setup_file fails the file.)
    [ "$(id -u)" = 0 ] || { echo "slurmd needs root to start jobs" && return; }
    command -v slurmctld slurmd munged sbatch >/dev/null || echo "Slurm is not installed (launch/install-deps --tests)"
}
setup_file() {
    [ -z "$(missing)" ] || return 0
    make_datasets
    cd "$BATS_FILE_TMPDIR" || return 1
    write_config config.yaml
    # bats waits for whoever holds its descriptor 3: daemons must not
    slurm_start "$BATS_FILE_TMPDIR/slurm" 3>&-
    export QUEST_HOME=$QUEST_ROOT QUEST_BIND=none
}
teardown_file() { slurm_stop "$BATS_FILE_TMPDIR/slurm"; }
setup() {
    [ -z "$(missing)" ] || skip "$(missing)"
    cd "$BATS_FILE_TMPDIR" || return 1
}

job_id() { sed -n 's/^Submitted batch job //p'; }
job_state() { scontrol show job "$1" 2>/dev/null | sed -n 's/.*JobState=\([A-Z]*\).*/\1/p'; }
in_state() { [[ $(job_state "$1") =~ ^($2)$ ]]; }
show() { # for a failure's report
    cat "$@" 2>/dev/null | grep -vE '^epoch [0-9]' | tail -n 40
    tail -n 5 slurm/log/slurmctld
}

@test "a job on two nodes trains, one rank a node" {
    run -0 timeout 120 sbatch --wait --nodes 2 --ntasks-per-node 1 --output first.out \
        "$QUEST_ROOT/launch/slurm/train.sbatch" config.yaml --out run --max-steps 12
    show first.out
    grep -q '2 ranks' first.out
    [ "$(json run/metrics.jsonl '[x["step"] for x in d if "grad_norm" in x] == list(range(1, 13))')" = True ]
    [ -e run/checkpoints/step_00000012.h5 ]
}

@test "a second job goes on where the first ended, and both together are the run that was never stopped" {
    QUEST_OUT=run run -0 timeout 120 sbatch --wait --nodes 2 --ntasks-per-node 1 --output second.out \
        "$QUEST_ROOT/launch/slurm/train.sbatch" config.yaml
    show second.out
    grep -q 'resumed from step 12' second.out
    ranks 2 quest-train config.yaml --out whole
    same_state run/checkpoints/step_00000030.h5 whole/checkpoints/step_00000030.h5
}

@test "a signal before the time limit: checkpoint, requeue, and the same job goes on by itself" {
    id=$(QUEST_OUT=requeued QUEST_REQUEUE=always sbatch --nodes 2 --ntasks-per-node 1 --output requeued.out \
        "$QUEST_ROOT/launch/slurm/train.sbatch" config.yaml --set train.steps=100000 --set optim.schedule=constant | job_id)
    wait_for 60 logged requeued 5 || show requeued.out
    scancel --batch --signal=TERM "$id"
    wait_for 60 grep -q 'back into the queue' requeued.out || show requeued.out
    wait_for 60 in_state "$id" 'PENDING|CONFIGURING'
    stopped=$(json requeued/metrics.jsonl 'max(x["step"] for x in d)')
    # Slurm holds a requeued job back for two minutes unless told otherwise. A start in the very second of the requeue would
    # be refused: slurmd takes the credential for the revoked one.
    scontrol update JobId="$id" StartTime=now+3
    wait_for 60 grep -q "resumed from step $stopped" requeued.out || { show requeued.out && return 1; }
    wait_for 30 logged requeued $((stopped + 5))
    scancel "$id"
    wait_for 30 in_state "$id" 'CANCELLED|COMPLETED|FAILED'
    # no step was lost or done twice
    [ "$(json requeued/metrics.jsonl '[x["step"] for x in d if "grad_norm" in x][:'$((stopped + 5))'] == list(range(1, '$((stopped + 6))'))')" = True ]
}

@test "a failing run fails the job with its message" {
    run timeout 120 sbatch --wait --nodes 2 --ntasks-per-node 1 --output bad.out \
        "$QUEST_ROOT/launch/slurm/train.sbatch" config.yaml --set optim.lr=fast
    show bad.out
    [ "$status" = 2 ]
    [ "$(grep -c '^error: .*optim\.lr' bad.out)" = 1 ]
    run timeout 60 sbatch --wait --output usage.out "$QUEST_ROOT/launch/slurm/train.sbatch"
    [ "$status" = 2 ]
}
