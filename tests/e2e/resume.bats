# Stopping and going on: the bits of a run that was stopped and resumed are those of one that never was.
load helpers
setup_file() {
    make_datasets
    write_config config.yaml
    ranks 2 quest-train config.yaml --out whole # 30 steps of 24 in 240 images: an epoch ends at steps 10, 20, 30
}
setup() {
    cd "$BATS_TEST_TMPDIR" || return 1
    config=$BATS_FILE_TMPDIR/config.yaml
    whole=$BATS_FILE_TMPDIR/whole
}

@test "--max-steps in the middle of an epoch, then --resume" {
    ranks 2 quest-train "$config" --out run --max-steps 13
    [ "$(json run/metrics.jsonl 'max(x["step"] for x in d)')" = 13 ]
    ranks 2 quest-train "$config" --out run --resume
    same_state run/checkpoints/step_00000030.h5 "$whole/checkpoints/step_00000030.h5"
    losses_agree run "$whole" 0 30
}

@test "--max-steps at the end of an epoch, twice, then --resume" {
    ranks 2 quest-train "$config" --out run --max-steps 10
    ranks 2 quest-train "$config" --out run --resume --max-steps 11
    ranks 2 quest-train "$config" --out run --resume
    same_state run/checkpoints/step_00000030.h5 "$whole/checkpoints/step_00000030.h5"
}

stop_and_resume() { # SIGNAL COMMAND...: sends it to the command's process once step 5 is logged; it must exit 0
    local signal=$1 process
    shift
    "$@" >log 2>&1 </dev/null 3>&- &
    process=$!
    wait_for 30 logged run 5
    kill "-$signal" $process
    wait $process || { cat log && return 1; }
    cat log
    grep -q -- --resume log
    local last
    last=$(json run/metrics.jsonl 'max(x["step"] for x in d)')
    [ "$last" -lt 3000 ]
    [ -e "run/checkpoints/step_$(printf %08d "$last").h5" ]
    [ -z "$(find run -name '*.new')" ]
}

@test "SIGINT finishes the step, writes a checkpoint, exits 0 and says how to go on; resuming loses nothing" {
    quest-train "$config" --set train.steps=3000 --set optim.schedule=constant --out reference --max-steps 60
    # `set -m`: without it bash starts background programs with SIGINT ignored
    set -m
    stop_and_resume INT quest-train "$config" --set train.steps=3000 --set optim.schedule=constant --out run
    set +m
    last=$(json run/metrics.jsonl 'max(x["step"] for x in d)')
    quest-train "$config" --set train.steps=3000 --set optim.schedule=constant --out run --resume --max-steps $((last > 60 ? last : 60))
    losses_60() { json "$1/metrics.jsonl" '[x["loss"] for x in d if "grad_norm" in x and x["step"] <= 60]'; }
    [ "$(losses_60 run)" = "$(losses_60 reference)" ]
}

@test "SIGTERM to launch/mpirun.sh stops all ranks in good order" {
    stop_and_resume TERM "$QUEST_ROOT/launch/mpirun.sh" -n 2 quest-train "$config" --set train.steps=3000 --out run
}

@test "SIGUSR1 to mpirun itself does too" {
    stop_and_resume USR1 mpirun -q -np 2 quest-train "$config" --set train.steps=3000 --out run
}

@test "resuming on another number of ranks" {
    ranks 1 quest-train "$config" --out run --max-steps 7
    ranks 2 quest-train "$config" --out run --resume --max-steps 17
    ranks 4 quest-train "$config" --out run --resume
    losses_agree run "$whole" 1e-4 30
}

@test "a directory that holds a run is refused without --resume, and nothing in it changes" {
    ranks 2 quest-train "$config" --out run --max-steps 2
    before=$(cd run && find . -type f ! -name lock -exec sha256sum {} + | sort)
    run ranks 2 quest-train "$config" --out run
    one_error 2 'run.*--resume'
    [ "$(cd run && find . -type f ! -name lock -exec sha256sum {} + | sort)" = "$before" ]
}

@test "--resume where there is no run is refused" {
    mkdir empty
    run quest-train "$config" --out empty --resume
    one_error 2 'empty'
}

@test "two runs at once in one directory: the second is refused and names the first" {
    quest-train "$config" --set train.steps=100000 --out run >log 2>&1 3>&- &
    process=$!
    wait_for 30 logged run 2
    run quest-train "$config" --out run --resume
    kill -TERM $process
    wait $process
    one_error 2 "$process"
}

@test "the checkpoints kept are the newest and the best by top-1" {
    quest-train "$config" --set train.eval_every=2 --set checkpoint.every=2 --set checkpoint.keep=2 --out run
    best=$(json run/metrics.jsonl 'max((x["top1"], -x["step"]) for x in d if "top5" in x)[1] * -1')
    ls -l run/checkpoints
    [ "$(readlink run/checkpoints/best.h5)" = "$(printf step_%08d.h5 "$best")" ]
    expected=$(printf '%s\n' "$(printf step_%08d.h5 "$best")" step_00000028.h5 step_00000030.h5 | sort -u)
    [ "$(cd run/checkpoints && ls step_*)" = "$expected" ]
}

@test "--resume refuses training data whose classes are others or in another order" {
    write_config config.yaml
    cp "$BATS_FILE_TMPDIR/train.h5" data.h5
    quest-train config.yaml --set data.train=data.h5 --out run --max-steps 10
    edit_h5 data.h5 'f["class_names"][...] = f["class_names"][...][::-1]'
    run quest-train config.yaml --set data.train=data.h5 --out run --resume
    one_error 2 'step_00000010\.h5: the checkpoint was trained on other classes, or in another order, than data\.h5 has'
}

@test "the run directory takes the whole name of the configuration" {
    write_config vit.lr1.yaml
    quest-train vit.lr1.yaml --max-steps 1
    [ -e runs/vit.lr1/checkpoints/step_00000001.h5 ]
}

@test "a damaged newer checkpoint does not push out what a resumed run writes" {
    write_config config.yaml
    quest-train config.yaml --set checkpoint.every=3 --out run --max-steps 9
    truncate -s -100 run/checkpoints/step_00000009.h5
    quest-train config.yaml --set checkpoint.every=3 --set checkpoint.keep=1 --out run --resume --max-steps 8
    run -0 quest-train config.yaml --set checkpoint.every=3 --out run --resume --max-steps 10
    [[ $output == *"resumed from step 8"* ]]
}
