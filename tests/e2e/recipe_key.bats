# recipe: a published training from one key, on tiny models: on any number of ranks, resumed, repeated, fine-tuned.
load helpers
setup_file() {
    cd "$BATS_FILE_TMPDIR" || return 1
    quest-data synth shapes --out train.h5 --images 600 --size 24 --seed 1
    quest-data synth shapes --out val.h5 --images 53 --size 24 --seed 2 --split test
}
setup() {
    cd "$BATS_TEST_TMPDIR" || return 1
    for recipe in deit deit3; do
        cat >$recipe.yaml <<YAML
recipe: $recipe
model: {image_size: 16, patch_size: 4, dim: 32, depth: 2, heads: 2}
data: {train: $BATS_FILE_TMPDIR/train.h5, val: $BATS_FILE_TMPDIR/val.h5}
train: {steps: 40, batch_size: 32}
optim: {warmup_epochs: 1} # of 2.5; the recipes' 5 would be all of it
log: {every: 1}
YAML
    done
    deit3=(--set model.drop_path=0.05 --set optim.lr=4.0e-3)
}

@test "a recipe's run is the same on other ranks, in parts, and from the configuration that it writes" {
    for recipe in deit deit3; do
        options=()
        [ $recipe = deit ] || options=("${deit3[@]}")
        quest-train $recipe.yaml "${options[@]}" --out $recipe.one
        ranks 2 quest-train $recipe.yaml "${options[@]}" --out $recipe.two
        losses_agree $recipe.two $recipe.one 1e-4 40
        quest-train $recipe.yaml "${options[@]}" --out $recipe.parts --max-steps 13
        quest-train $recipe.yaml "${options[@]}" --out $recipe.parts --resume
        same_state $recipe.one/checkpoints/step_00000040.h5 $recipe.parts/checkpoints/step_00000040.h5
        quest-train $recipe.one/config.yaml --out $recipe.again
        same_state $recipe.one/checkpoints/step_00000040.h5 $recipe.again/checkpoints/step_00000040.h5
        cmp $recipe.one/config.yaml $recipe.again/config.yaml
    done
    run losses_agree deit.one deit3.one 1e-4 40
    [ "$status" != 0 ]
}

@test "the resolved configuration has the recipe's keys, but for those that are given" {
    run --separate-stderr quest-train deit.yaml --set train.label_smoothing=0.05 --max-steps 1 --out run
    [ "$status" = 0 ]
    grep -qxF 'recipe: deit, but model.image_size 16 (224), train.epochs 0 (300), train.batch_size 32 (1024), '"\
"'train.label_smoothing 0.05 (0.1), optim.warmup_epochs 1.0 (5.0)' <<<"$output"
    for line in 'recipe: deit' \
        'rand_augment: "rand-m9-mstd0.5-inc1"' 'repeats: 3' 'mixup: 0.8' 'erase_probability: 0.25' \
        'batch_size: 32' 'epochs: 0' 'warmup_epochs: 1.0' 'schedule: deit' \
        'label_smoothing: 0.05' 'weight_decay: 0.05' 'crop_pct: 0.875'; do
        grep -qxE " *$line" run/config.yaml
    done
}

@test "a pre-training by one recipe, a fine-tuning by another, at another resolution and for other classes" {
    quest-train deit3.yaml "${deit3[@]}" --out pretrained
    tune=(--set recipe=deit3_finetune --set model.image_size=24 --set model.drop_path=0.0 --set model.classes=12)
    run --separate-stderr quest-train deit3.yaml "${tune[@]}" --init pretrained/checkpoints/best.h5 --out tuned
    [ "$status" = 0 ]
    [[ "$output" == *"position table: 4 x 4 -> 6 x 6, resampled"* && "$output" == *"10 classes"*"12 here: starts anew"* ]]
    quest-eval --checkpoint tuned/checkpoints/best.h5 --data "$BATS_FILE_TMPDIR/val.h5" --json tuned.json
    [ "$(json tuned.json 'd["images"]')" = 53 ]
}

refused() { # PATTERN OPTION...
    local pattern=$1
    shift
    run quest-train "$@" --out refused
    one_error 2 "$pattern"
    [ ! -e refused ]
}

@test "a recipe that there is not, and one that has no number for this model" {
    refused "deti' is not known \(one of none, deit, deit_finetune, deit3, deit3_finetune" deit.yaml --set recipe=deti
    refused 'deit3\.yaml:1: recipe: deit3 has model\.drop_path for vit_small, .* give one of these as model\.preset' deit3.yaml
    refused 'deit3\.yaml:1: recipe: deit3 has optim\.lr for' deit3.yaml --set model.drop_path=0.1
    refused 'deit\.yaml: optim\.min_lr \(of recipe deit\): 1e-05 is more than' deit.yaml --set optim.lr=1.0e-6
    refused 'schedule counts epochs' deit.yaml --set optim.warmup_epochs=0 --set optim.warmup_steps=9
    refused '80 steps, not less than the 40' deit.yaml --set optim.warmup_epochs=5
    refused 'mix\.mixup \(of recipe deit\): mixes images in pairs, but a micro-step has 25' deit.yaml --set train.batch_size=25
}
