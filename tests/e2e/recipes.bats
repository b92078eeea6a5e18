# Recipes: what timm's transforms are to a run. (Each transform's numbers: fixtures/recipes and unit/compose.)
load helpers
setup_file() {
    make_datasets
    cd "$BATS_FILE_TMPDIR" || return 1
    quest-data synth shapes --out large.h5 --images 240 --size 24 --seed 1
    quest-data synth shapes --out grey.h5 --images 48 --size 16 --seed 1
    /usr/bin/python3 -c '
import h5py
with h5py.File("grey.h5", "r+") as f:
    grey = f["images"][...][..., :1]
    labels = f["images"].attrs
    del f["images"]
    f.create_dataset("images", data=grey, chunks=(1, 16, 16, 1))
    for name in ("mean", "std"):
        value = f.attrs[name][:1]
        f.attrs.create(name, value)
    f.attrs["channels"] = 1'
}
setup() {
    cd "$BATS_TEST_TMPDIR" || return 1
    write_config config.yaml
    crops=(--set "data.train=$BATS_FILE_TMPDIR/large.h5" --set data.interpolation=bicubic
        --set data.augment.crop_padding=0 --set data.augment.random_resized_crop=true)
    deit=("${crops[@]}" --set data.augment.rand_augment=rand-m9-mstd0.5-inc1 --set data.augment.repeats=3
        --set data.crop_pct=0.875 --set data.augment.erase_probability=0.25 --set mix.mixup=0.8 --set mix.cutmix=1
        --set mix.group=4 --set train.label_smoothing=0.1)
    deit3=("${crops[@]}" --set data.augment.three_augment=true --set data.augment.color_jitter=0.3)
}

@test "threads, ranks and a stop at any step do not change what a recipe shows" {
    for recipe in deit deit3; do
        options=("${deit[@]}")
        [ $recipe = deit ] || options=("${deit3[@]}")
        quest-train config.yaml "${options[@]}" --set data.workers=1 --out "$recipe.one"
        quest-train config.yaml "${options[@]}" --set data.workers=4 --out "$recipe.four"
        same_state "$recipe.one/checkpoints/step_00000030.h5" "$recipe.four/checkpoints/step_00000030.h5"
        quest-train config.yaml "${options[@]}" --out "$recipe.parts" --max-steps 13
        quest-train config.yaml "${options[@]}" --out "$recipe.parts" --resume
        same_state "$recipe.one/checkpoints/step_00000030.h5" "$recipe.parts/checkpoints/step_00000030.h5"
        ranks 2 quest-train config.yaml "${options[@]}" --out "$recipe.two"
        losses_agree "$recipe.two" "$recipe.one" 1e-4 30
    done
    run losses_agree deit.one deit3.one 1e-4 30
    [ "$status" != 0 ]
}

@test "what is mixed, erased and cut is the same on one rank in two parts and on four" {
    options=("${deit[@]}" --set data.augment.repeats=1 --set mix.group=2 --set mix.per=image --set train.accumulate=3)
    quest-train config.yaml "${options[@]}" --out one
    quest-train config.yaml "${options[@]}" --set train.accumulate=1 --out whole
    ranks 4 quest-train config.yaml "${options[@]}" --out four
    losses_agree whole one 1e-4 30
    losses_agree four one 1e-4 30
    for other in mix.mixup=0 mix.cutmix=0 mix.per=batch mix.probability=0.5 mix.switch_probability=0.9 mix.group=4 \
        mix.cutmix_rule=deit data.augment.erase_probability=0 data.augment.erase_area_max=0.1; do
        quest-train config.yaml "${options[@]}" --set $other --out "$other"
        run losses_agree "$other" one 1e-4 30
        [ "$status" != 0 ]
    done
}

@test "repeats keep an epoch's length, but for what is over a multiple of 256" {
    quest-data synth shapes --out many.h5 --images 600 --size 16 --seed 1
    options=(--set data.train=many.h5 --set train.batch_size=32 --set train.steps=16)
    quest-train config.yaml "${options[@]}" --out plain
    quest-train config.yaml "${options[@]}" --set data.augment.repeats=3 --out repeated
    [ "$(json repeated/metrics.jsonl 'round(float([x["epoch"] for x in d if "grad_norm" in x][-1]), 4)')" = 1.0 ] # 512 samples
    [ "$(json plain/metrics.jsonl 'round([x["epoch"] for x in d if "grad_norm" in x][-1], 4)')" = 0.8533 ]
}

@test "an evaluation crops as the training run's configuration says" {
    short=(--set "data.val=$BATS_FILE_TMPDIR/large.h5" --set train.steps=2 --set optim.warmup_steps=1)
    quest-train config.yaml "${deit[@]}" "${short[@]}" --out run
    quest-train config.yaml "${deit[@]}" "${short[@]}" --set data.crop_pct=1.0 --out whole
    for name in run whole; do
        quest-eval --checkpoint $name/checkpoints/step_00000002.h5 --data "$BATS_FILE_TMPDIR/large.h5" --json $name.json
        [ "$(json $name.json 'd["loss"]')" = "$(json $name/metrics.jsonl '[x["loss"] for x in d if "top5" in x][-1]')" ]
    done
    [ "$(json run.json 'd["loss"]')" != "$(json whole.json 'd["loss"]')" ]
}

refused() { # PATTERN OPTION...
    local pattern=$1
    shift
    run quest-train config.yaml "$@" --out refused
    one_error 2 "$pattern"
    [ ! -e refused/checkpoints ] || [ -z "$(ls refused/checkpoints)" ]
}

@test "policies that are none, and transforms that exclude each other" {
    refused "data\.augment\.rand_augment: 'zoom3' is not known; the parts are m, n, p, mstd, mmax and inc" \
        --set data.augment.rand_augment=rand-m9-zoom3
    refused "data\.augment\.rand_augment: 'm11': m takes a number from 0 to 10" --set data.augment.rand_augment=rand-m11
    refused "data\.augment\.rand_augment: 'augmix' is no policy" --set data.augment.rand_augment=augmix
    refused 'data\.augment\.three_augment.*rand_augment is on too' "${deit[@]}" --set data.augment.three_augment=true
    refused 'data\.augment\.simple_crop.*random_resized_crop is on too' "${deit[@]}" --set data.augment.simple_crop=true
    refused 'data\.interpolation.*lanczos.*bicubic' --set data.interpolation=lanczos
    refused 'data\.crop_pct' --set data.crop_pct=0
    refused 'data\.augment\.repeats' --set data.augment.repeats=0
}

@test "mixing and erasing that cannot be done" {
    refused 'mix\.cutmix.*mixes images in pairs, but a micro-step has 25' --set mix.cutmix=1 --set train.batch_size=25
    refused 'mix\.group.*10 must be even and divide the 24 images' --set mix.mixup=1 --set mix.group=10
    refused 'mix\.group.*3 must be even' --set mix.mixup=1 --set mix.group=3
    refused 'mix\.mixup' --set mix.mixup=-1
    refused 'mix\.probability' --set mix.probability=1.5
    refused 'data\.augment\.erase_area_max.*1\.5' --set data.augment.erase_area_max=1.5
    refused 'data\.augment\.erase_area_min.*0\.5 is more than erase_area_max' --set data.augment.erase_area_min=0.5
    refused 'data\.augment\.repeats: 11 copies in batches of 24.* 264 images.*has 240' --set data.augment.repeats=11
    run ranks 2 quest-train config.yaml --set mix.mixup=1 --set mix.group=8 --out refused
    one_error 2 'mix\.group: 8 images.*does not divide the 12 images'
}

@test "colour operations on grey pictures are refused by the file's name" {
    refused 'grey\.h5.*1 channel.*colour operations' --set "data.train=$BATS_FILE_TMPDIR/grey.h5" --set data.val= \
        --set data.augment.rand_augment=rand-m9
}
