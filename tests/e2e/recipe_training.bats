# Recipes: losses, learning rates and averages of a run. (Their numbers: fixtures/recipes.)
load helpers
setup_file() { make_datasets; }
setup() {
    cd "$BATS_TEST_TMPDIR" || return 1
    write_config config.yaml
}

refused() { # PATTERN OPTION...
    local pattern=$1
    shift
    run quest-train config.yaml "$@" --out refused
    one_error 2 "$pattern"
    [ ! -e refused/checkpoints ] || [ -z "$(ls refused/checkpoints)" ]
}

rates() { json "$1/metrics.jsonl" '[x["lr"] for x in d if "grad_norm" in x]'; }

@test "BCE: trains, begins at log 2 a class, and is evaluated by cross-entropy" {
    mixed=(--set train.loss=bce --set mix.mixup=0.8 --set mix.group=4)
    quest-train config.yaml "${mixed[@]}" --out mean
    [ "$(json mean/metrics.jsonl '0.6 < d[0]["loss"] < 0.8')" = True ]
    [ "$(json mean/metrics.jsonl '[x["loss"] for x in d if "grad_norm" in x][-1] < 0.9 * d[0]["loss"]')" = True ]
    [ "$(json mean/metrics.jsonl '1.9 < [x["loss"] for x in d if x.get("split") == "val"][-1] < 2.5')" = True ]
    ranks 2 quest-train config.yaml "${mixed[@]}" --out two
    losses_agree two mean 1e-4 30
    quest-train config.yaml "${mixed[@]}" --set train.bce_sum=true --max-steps 1 --out sum
    [ "$(json sum/metrics.jsonl "abs(d[0]['loss'] / $(json mean/metrics.jsonl 'd[0]["loss"]') - 10) < 1e-4")" = True ]
    for threshold in -1 0.5; do
        quest-train config.yaml "${mixed[@]}" --set train.bce_threshold=$threshold --out "run$threshold"
        run losses_agree "run$threshold" mean 1e-3 30
        [ "$status" != 0 ]
    done
}

@test "BCE of smoothed targets over the threshold" {
    refused 'train\.label_smoothing=0\.1: 0\.1 with train\.loss: bce puts every class over train\.bce_threshold 0' \
        --set train.loss=bce --set train.label_smoothing=0.1
}

@test "constant stochastic depth is not the rising one" {
    for rule in linear constant; do
        quest-train config.yaml --set model.drop_path=0.5 --set model.drop_path_rule=$rule --max-steps 3 --out $rule
    done
    run losses_agree linear constant 1e-4 3
    [ "$status" != 0 ] && grep -q 'largest relative difference' <<<"$output"
}

@test "DeiT's schedule: the first two epochs at the warm-up's start, and the same after a stop in mid-epoch" {
    deit=(--set optim.schedule=deit --set optim.warmup_steps=0 --set optim.warmup_epochs=2 --set optim.warmup_lr=1e-4
        --set train.batch_size=60 --set train.steps=0 --set train.epochs=5)
    quest-train config.yaml "${deit[@]}" --out whole # 4 steps an epoch
    want='[float(f"{x:.6g}") for x in [1e-4] * 8 + [5.5e-4] * 4 + [1e-3 * (1 + __import__("math").cos(3.14159265358979 * t / 5)) / 2 for t in [2] * 4 + [3] * 4]]'
    [ "$(json whole/metrics.jsonl '[float(f"{x[chr(108) + chr(114)]:.6g}") for x in d if "grad_norm" in x] == '"$want")" = True ]
    quest-train config.yaml "${deit[@]}" --out parts --max-steps 6
    quest-train config.yaml "${deit[@]}" --out parts --resume
    [ "$(rates parts)" = "$(rates whole)" ]
    same_state whole/checkpoints/step_00000020.h5 parts/checkpoints/step_00000020.h5
}

@test "a rate for another batch size, and a warm-up as long as the run, in epochs" {
    quest-train config.yaml --set optim.lr_base_batch=96 --set optim.schedule=constant --max-steps 6 --out scaled
    [ "$(json scaled/metrics.jsonl '"%.9g" % d[5]["lr"]')" = 0.00025 ]
    refused 'optim\.min_lr=5e-4: 0\.0005 is more than optim\.lr 0\.001 x batch 24 / lr_base_batch 96' \
        --set optim.lr_base_batch=96 --set optim.min_lr=5e-4
    refused 'optim\.warmup_epochs and cooldown_epochs are 30 steps, not less than the 30 of this run \(an epoch is 240' \
        --set optim.warmup_steps=0 --set optim.warmup_epochs=3
    refused 'optim\.warmup_epochs=3: 3 and cooldown_epochs 0 are not less than train\.epochs 3' \
        --set optim.warmup_steps=0 --set optim.warmup_epochs=3 --set train.steps=0 --set train.epochs=3
}

# average_follows A.h5 B.h5 DECAY: the average of B is a step of that of A, towards B's parameters
average_follows() {
    /usr/bin/python3 - "$@" <<'PYTHON'
import sys, h5py, numpy
before, after, decay = h5py.File(sys.argv[1]), h5py.File(sys.argv[2]), float(sys.argv[3])
assert after.attrs["step"] == before.attrs["step"] + 1 and set(after["ema"]) == set(after["params"])
for name in after["params"]:
    old, new, now = (numpy.float64(x[...]) for x in (before["ema"][name], after["ema"][name], after["params"][name]))
    assert abs(decay * old + (1 - decay) * now - new).max() <= 3e-7 * max(abs(now).max(), 1e-3), name
assert any((after["ema"][name][...] != after["params"][name][...]).any() for name in after["params"])
PYTHON
}

# same_average A.h5 B.h5: bit for bit
same_average() {
    /usr/bin/python3 - "$@" <<'PYTHON'
import sys, h5py
a, b = (h5py.File(path)["ema"] for path in sys.argv[1:])
assert set(a) == set(b) and all(a[name][...].tobytes() == b[name][...].tobytes() for name in a), "bits differ"
PYTHON
}

@test "an average is kept, evaluated and saved, and changes nothing of the training" {
    options=(--set train.steps=12 --set checkpoint.every=1 --set checkpoint.keep=20 --set train.eval_every=5)
    quest-train config.yaml "${options[@]}" --out plain
    for n in 1 2; do
        ranks $n quest-train config.yaml "${options[@]}" --set ema.decay=0.9 --out ema$n
        for step in 01 05 11; do
            average_follows ema$n/checkpoints/step_000000$step.h5 \
                "ema$n/checkpoints/step_000000$(printf %02d $((10#$step + 1))).h5" 0.9
        done
    done
    quest-train config.yaml "${options[@]}" --set train.precision=bf16 --out plain16
    quest-train config.yaml "${options[@]}" --set train.precision=bf16 --set ema.decay=0.9 --out ema16
    /usr/bin/python3 - <<'PYTHON'
import h5py
for runs in (("plain", "ema1"), ("plain16", "ema16")):
    a, b = (h5py.File(f"{run}/checkpoints/step_00000012.h5") for run in runs)
    assert "ema" not in a
    for group in ("params", "adamw/m", "adamw/v"):
        assert all(a[group][name][...].tobytes() == b[group][name][...].tobytes() for name in a[group]), group
PYTHON
    [ "$(json ema1/metrics.jsonl '[(x["split"], x["step"]) for x in d if "split" in x]')" = \
        "[('val', 5), ('val_ema', 5), ('val', 10), ('val_ema', 10), ('val', 12), ('val_ema', 12)]" ]
    for option in "" --ema; do
        split=val${option:+_ema}
        # shellcheck disable=SC2086 # none where it is empty
        quest-eval --checkpoint ema1/checkpoints/step_00000012.h5 --data "$BATS_FILE_TMPDIR/val.h5" $option --json $split.json
        [ "$(json $split.json 'd["loss"]')" = "$(json ema1/metrics.jsonl "[x['loss'] for x in d if x.get('split') == '$split'][-1]")" ]
    done
    [ "$(json val.json 'd["loss"]')" != "$(json val_ema.json 'd["loss"]')" ]
    run quest-eval --checkpoint plain/checkpoints/step_00000012.h5 --data "$BATS_FILE_TMPDIR/val.h5" --ema
    one_error 2 '--ema: plain/checkpoints/step_00000012\.h5 holds no average of the weights'
}

@test "an average that warms up begins as a copy" {
    quest-train config.yaml --set checkpoint.every=1 --set ema.decay=0.9 --set ema.warmup=true --max-steps 2 --out warm
    edit_h5 warm/checkpoints/step_00000001.h5 'assert all((f["ema"][n][...] == f["params"][n][...]).all() for n in f["ema"])'
    average_follows warm/checkpoints/step_00000001.h5 warm/checkpoints/step_00000002.h5 0.37003947505256341
}

@test "a resumed run has its average again, on any number of ranks; one without begins it" {
    quest-train config.yaml --set ema.decay=0.9 --out whole
    quest-train config.yaml --set ema.decay=0.9 --out parts --max-steps 13
    quest-train config.yaml --set ema.decay=0.9 --out parts --resume
    same_state whole/checkpoints/step_00000030.h5 parts/checkpoints/step_00000030.h5
    same_average whole/checkpoints/step_00000030.h5 parts/checkpoints/step_00000030.h5
    # Steps that change no parameter: the average alone moves, the same on any number of ranks.
    still=(--set ema.decay=0.9 --set optim.lr=1e-36 --set optim.weight_decay=0 --set train.steps=33)
    for n in 1 2 3; do
        cp -r whole on$n
        ranks $n quest-train config.yaml "${still[@]}" --out on$n --resume
        same_average on$n/checkpoints/step_00000033.h5 on1/checkpoints/step_00000033.h5
    done
    run same_average on1/checkpoints/step_00000033.h5 on1/checkpoints/step_00000030.h5
    [ "$status" != 0 ] && grep -q 'bits differ' <<<"$output"
    quest-train config.yaml --set train.steps=33 --out whole --resume # without
    run -0 quest-train config.yaml --set ema.decay=0.5 --set train.steps=34 --out whole --resume
    grep -q 'resumed from step 33; its checkpoint has no average (ema.decay), which begins here' <<<"$output"
    edit_h5 whole/checkpoints/step_00000034.h5 'assert "ema" in f'
}

@test "TensorBoard shows the average beside the parameters, live and exported; Prometheus the parameters" {
    quest-train config.yaml --set ema.decay=0.9 --set train.steps=8 --set log.tensorboard=true \
        --set log.prometheus=run.prom --out run
    quest-norms export run --tensorboard board
    for folder in run/tensorboard board; do
        [ "$(cat $folder/* | grep -aoE 'evaluation/(top1|loss)(_ema)?' | sort | tr '\n' ' ')" = \
            "evaluation/loss evaluation/loss_ema evaluation/top1 evaluation/top1_ema " ]
    done
    value=$(json run/metrics.jsonl '"%.6g" % [x["loss"] for x in d if x.get("split") == "val"][0]')
    [ "$(sed -n 's/^quest_evaluation_loss.* //p' run.prom | xargs printf %.6g)" = "$value" ]
}

@test "a checkpoint that cannot be written, or an evaluation that fails, with an average on two ranks" {
    options=(--set ema.decay=0.9 --set train.steps=150 --set checkpoint.every=150)
    ranks 2 quest-train config.yaml "${options[@]}" --set train.eval_every=1 --out blocked >log 2>&1 3>&- &
    trainer=$!
    wait_for 30 grep -q val_ema blocked/metrics.jsonl
    rm -r blocked/checkpoints
    wait $trainer && return 1
    grep -q 'no checkpoint of step 150' log
    [ "$(grep -c '^error: ' log)" = 1 ]
    cp "$BATS_FILE_TMPDIR/val.h5" val.h5
    ranks 2 quest-train config.yaml "${options[@]}" --set data.val=val.h5 --set train.eval_every=150 --out run >log 2>&1 3>&- &
    trainer=$!
    wait_for 30 test -s run/metrics.jsonl
    truncate -s 5000 val.h5
    wait $trainer && return 1
    grep -q '^error: .*val.h5: ' log
    for option in "" --ema; do
        # shellcheck disable=SC2086 # none where it is empty
        quest-eval --checkpoint run/checkpoints/step_00000150.h5 --data "$BATS_FILE_TMPDIR/val.h5" $option
    done
}

@test "averages that cannot be" {
    refused "ema\.decay.*'1' is out of range" --set ema.decay=1
    refused 'ema\.decay' --set ema.decay=-0.1
    refused 'ema\.warmup.*there is no average; give ema\.decay' --set ema.warmup=true
}
