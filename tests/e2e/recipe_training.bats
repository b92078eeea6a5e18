# Recipes: losses and learning rates of a run. (Their numbers: fixtures/recipes.)
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
