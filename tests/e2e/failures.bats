# What goes wrong while a run is under way: a rank that dies, numbers that are not finite, damaged checkpoints, a full disk.
load helpers
setup_file() { make_datasets; }
setup() {
    cd "$BATS_TEST_TMPDIR" || return 1
    write_config config.yaml
    mounted=
}
teardown() { [ -z "$mounted" ] || umount "$mounted"; }

finite() { # CHECKPOINT: every parameter and moment is
    /usr/bin/python3 -c '
import sys, h5py, numpy as np
with h5py.File(sys.argv[1]) as f:
    assert all(np.isfinite(f[g][n][...]).all() for g in ("params", "adamw/m", "adamw/v") for n in f[g])' "$1"
}

@test "a killed rank ends the job with a message, not a hang" {
    "$QUEST_ROOT/launch/mpirun.sh" -n 2 quest-train config.yaml --set train.steps=100000 --out run >log 2>&1 </dev/null 3>&- &
    launcher=$!
    wait_for 30 logged run 12
    # the second rank of this run: a child of this launcher's mpirun
    job=$(pgrep -P $launcher -x mpirun)
    victim=$(pgrep -P "$job" -x quest-train | tail -n 1)
    begin=$SECONDS
    kill -9 "$victim"
    wait $launcher && status=0 || status=$?
    cat log
    echo "status $status after $((SECONDS - begin)) s"
    [ "$status" != 0 ]
    [ $((SECONDS - begin)) -le 15 ]
    grep -q '^error: .*--resume' log
    run pgrep -P "$job"
    [ -z "$output" ]
    last=$(json run/metrics.jsonl 'max(x["step"] for x in d if "grad_norm" in x)')
    ranks 2 quest-train config.yaml --set train.steps=100000 --out run --resume --max-steps $((last + 5))
    [ "$(json run/metrics.jsonl "[x['step'] for x in d if 'grad_norm' in x] == list(range(1, $last + 6))")" = True ]
}

@test "a rank that hangs ends the job within comm.timeout_s, with a message that names it" {
    for victim_rank in 0 1; do
        # Between checkpoints, that is: while rank 0 writes one, the others wait for it as long as it takes.
        "$QUEST_ROOT/launch/mpirun.sh" -n 2 quest-train config.yaml --set train.steps=100000 --set checkpoint.every=100000 \
            --set comm.timeout_s=2 --out run$victim_rank >log 2>&1 </dev/null 3>&- &
        launcher=$!
        wait_for 30 logged run$victim_rank 12
        job=$(pgrep -P $launcher -x mpirun)
        for victim in $(pgrep -P "$job" -x quest-train); do
            tr '\0' '\n' <"/proc/$victim/environ" | grep -qx "OMPI_COMM_WORLD_RANK=$victim_rank" && break
        done
        begin=$SECONDS
        kill -STOP "$victim"
        { sleep 30 && kill -KILL "$job" "$victim"; } >/dev/null 2>&1 3>&- &
        watchdog=$!
        wait $launcher && status=0 || status=$?
        kill $watchdog
        grep -v '^epoch' log
        echo "status $status after $((SECONDS - begin)) s"
        [ "$status" != 0 ]
        [ $((SECONDS - begin)) -le 15 ]
        grep -q "^error: .*rank $victim_rank .*stopped answering .*(comm.timeout_s = 2 s)" log
    done
}

@test "NaN: the run names step, layer and tensor, writes no checkpoint and exits 1" {
    quest-train config.yaml --out start --max-steps 1
    # what a flipped bit in memory would do: one number of one layer
    /usr/bin/python3 - <<'PYTHON'
import h5py, numpy as np
with h5py.File("start/checkpoints/step_00000001.h5") as f, h5py.File("poisoned.h5", "w") as out:
    for name, tensor in f["params"].items():
        out[f"params/{name}"] = tensor[...]
    weight = out["params/blocks.1.mlp.fc1.weight"][...]
    weight[3, 5] = np.nan
    out["params/blocks.1.mlp.fc1.weight"][...] = weight
PYTHON
    run ranks 2 quest-train config.yaml --init poisoned.h5 --out poisoned
    one_error 1 'step 1.*(layer|block)s?[ .]*1.*mlp\.fc1'
    [ -d poisoned/checkpoints ]
    [ -z "$(find poisoned/checkpoints -name 'step_*')" ]
}

@test "an evaluation that fails takes the checkpoint of its step with it to the disk" {
    write_config config.yaml
    cp "$BATS_FILE_TMPDIR/val.h5" val.h5
    quest-train config.yaml --set data.val=val.h5 --set train.steps=150 --set train.eval_every=150 \
        --set checkpoint.every=150 --out run >log 2>&1 3>&- &
    trainer=$!
    wait_for 30 test -s run/metrics.jsonl
    truncate -s 5000 val.h5
    status=0
    wait $trainer || status=$?
    tail -n 3 log
    [ "$status" = 1 ]
    grep -q '^error: val.h5: ' log
    quest-eval --checkpoint run/checkpoints/step_00000150.h5 --data "$BATS_FILE_TMPDIR/val.h5"
}

@test "a run that diverges stops within the step, and its checkpoints are finite" {
    run ranks 2 quest-train config.yaml --set optim.lr=1e30 --set optim.clip_grad_norm=0 --set checkpoint.every=1 --out run
    one_error 1 'step [0-9]+'
    for checkpoint in run/checkpoints/step_*.h5; do finite "$checkpoint"; done
    json run/events.jsonl '[x["severity"] for x in d]' | grep -q critical
}

damaged_newest() { # COMMAND that damages the file named after it; resuming must fall back and say so, with the same bits
    quest-train config.yaml --out whole
    quest-train config.yaml --set checkpoint.every=5 --out run --max-steps 15
    "$@" run/checkpoints/step_00000015.h5
    run quest-train config.yaml --out run --resume
    echo "$output"
    [ "$status" = 0 ]
    [[ $output == *warning:*step_00000015.h5* && $output == *"resumed from step 10"* ]]
    same_state run/checkpoints/step_00000030.h5 whole/checkpoints/step_00000030.h5
    [ "$(json run/metrics.jsonl '[x["step"] for x in d if "grad_norm" in x] == list(range(1, 31))')" = True ]
}
cut_in_half() { truncate -s $(($(stat -c %s "$1") / 2)) "$1"; }
flip_a_bit() { # in the middle of the file, among the tensors
    /usr/bin/python3 -c '
import sys
with open(sys.argv[1], "r+b") as file:
    file.seek(0, 2)
    at = file.tell() // 2
    file.seek(at); byte = file.read(1)[0]
    file.seek(at); file.write(bytes([byte ^ 4]))' "$1"
}

@test "a truncated checkpoint: --resume falls back to the one before and says so" { damaged_newest cut_in_half; }
@test "a flipped bit in a checkpoint: --resume falls back to the one before and says so" { damaged_newest flip_a_bit; }
@test "an empty checkpoint: --resume falls back to the one before and says so" { damaged_newest truncate -s 0; }

@test "a run killed before its first checkpoint starts from the beginning with --resume; a directory that is no run does not" {
    quest-train config.yaml --out whole
    quest-train config.yaml --set train.steps=100000 --set checkpoint.every=100000 --out run >log 2>&1 3>&- &
    trainer=$!
    wait_for 30 test -s run/metrics.jsonl
    kill -KILL $trainer
    run quest-train config.yaml --out run
    one_error 2 'holds a run already'
    run -0 quest-train config.yaml --out run --resume
    [[ $output == *"run holds no checkpoint yet: starting from the beginning"* ]]
    same_state run/checkpoints/step_00000030.h5 whole/checkpoints/step_00000030.h5
    [ "$(json run/metrics.jsonl '[x["step"] for x in d if "grad_norm" in x] == list(range(1, 31))')" = True ]
    run quest-train config.yaml --out mistyped --resume
    one_error 2 'no valid checkpoint'
}

@test "ranks that read another configuration or another dataset are named before training" {
    mkdir 0 1
    cp "$BATS_FILE_TMPDIR/train.h5" 0/ && cp "$BATS_FILE_TMPDIR/val.h5" 1/train.h5
    run ranks 2 bash -c 'exec quest-train config.yaml --set optim.lr=1e-$((OMPI_COMM_WORLD_RANK + 3)) --out run'
    one_error 2 "rank 1 .*the configuration differs from rank 0's"
    run ranks 2 bash -c 'cd $OMPI_COMM_WORLD_RANK && exec quest-train ../config.yaml --set data.train=train.h5 --set data.val= --out ../run'
    one_error 2 'rank 1 .*train\.h5: is not what rank 0 reads'
}

@test "no whole checkpoint is left: one error that says so" {
    quest-train config.yaml --set checkpoint.every=5 --out run --max-steps 10
    for checkpoint in run/checkpoints/step_*.h5; do cut_in_half "$checkpoint"; done
    run ranks 2 quest-train config.yaml --out run --resume
    one_error '1|2' 'checkpoint'
}

@test "disk full while checkpointing: the earlier checkpoint is whole and the run goes on from it" {
    mkdir small
    mount -t tmpfs -o size=1200k tmpfs small 2>/dev/null || skip "mounting a small file system is not allowed here"
    mounted=$PWD/small
    run quest-train config.yaml --set checkpoint.every=3 --set checkpoint.keep=100 --out small/run
    echo "$output"
    df small
    [ "$status" -le 1 ]
    grep -qiE 'space|full' <<<"$output"
    [ -z "$(find small/run/checkpoints -name '*.new')" ]
    ls -l small/run/checkpoints
    for checkpoint in small/run/checkpoints/step_*.h5; do finite "$checkpoint"; done
    cp -r small/run roomy
    quest-train config.yaml --out roomy --resume
    quest-train config.yaml --out whole
    same_state roomy/checkpoints/step_00000030.h5 whole/checkpoints/step_00000030.h5
}

@test "an output directory that cannot be written: one error, status 2 or 1, before any training" {
    touch file
    run ranks 2 quest-train config.yaml --out file/run
    one_error '1|2' 'file'
    mkdir sealed
    if mount -t tmpfs -o ro tmpfs sealed 2>/dev/null; then mounted=$PWD/sealed; else chmod 500 sealed; fi
    [ ! -w sealed ] || skip "mounting a read-only file system is not allowed here"
    run ranks 2 quest-train config.yaml --out sealed/run
    one_error '1|2' 'sealed/run'
}
