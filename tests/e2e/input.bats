# Bad input: one line that says what is wrong, where and what to do, and exit status 2. (Datasets: data.bats; every key of
# the configuration and every damage to a checkpoint: the unit tests. Here: that the programs say it.)
load helpers
setup_file() {
    make_datasets
    cd "$BATS_FILE_TMPDIR" || return 1
    write_config config.yaml
    quest-train config.yaml --out start --max-steps 1
}
setup() {
    cd "$BATS_TEST_TMPDIR" || return 1
    write_config config.yaml
    start=$BATS_FILE_TMPDIR/start/checkpoints/step_00000001.h5
}

refused() { # PATTERN ARGUMENT...: quest-train refuses, with one error that matches, and leaves no run behind
    local pattern=$1
    shift
    run quest-train "$@" --out refused
    one_error 2 "$pattern"
    [ ! -e refused/metrics.jsonl ] || [ ! -s refused/metrics.jsonl ]
}

@test "command lines: no configuration, two, an unknown option, a value missing, a file that is not there" {
    for arguments in "" "config.yaml config.yaml" "config.yaml --colour" "config.yaml --max-steps" \
        "config.yaml --max-steps=two" "config.yaml --device=tpu" "config.yaml --set"; do
        run quest-train $arguments
        echo "$arguments: $status $output"
        [ "$status" = 2 ]
        [ -n "$output" ]
    done
    refused 'nowhere\.yaml.*No such file' nowhere.yaml
    for program in quest-train quest-eval quest-bench quest-data; do
        run -0 $program --help
        [[ $output == *[Uu]sage* ]]
        run -0 $program --version
        [[ $output =~ [0-9]+\.[0-9]+ ]]
    done
}

@test "an unknown key is named with file and line" {
    sed -i 's/^optim: {lr/optim: {learning_rate/' config.yaml
    refused 'config\.yaml:5.*learning_rate' config.yaml
}

@test "a value of the wrong type, half a number, or out of range" {
    refused 'train\.batch_size.*4x' config.yaml --set train.batch_size=4x
    refused 'optim\.lr.*fast' config.yaml --set optim.lr=fast
    refused 'optim\.lr.*-1' config.yaml --set optim.lr=-1
    refused 'attention\.kind.*softmax.*quest' config.yaml --set attention.kind=softmax
    refused 'train\.speed' config.yaml --set train.speed=1
    sed -i 's/batch_size: 24/batch_size: 4x/' config.yaml
    refused 'config\.yaml:4.*batch_size.*4x' config.yaml
}

@test "a key given twice, and an alias bomb" {
    echo 'log: {every: 2}' >>config.yaml
    refused 'config\.yaml:9.*log' config.yaml
    {
        echo 'a: &a [x, x, x, x, x, x, x, x, x]'
        for pair in ab bc cd de ef fg gh hi ij; do
            echo "${pair:1}: &${pair:1} [*${pair:0:1}, *${pair:0:1}, *${pair:0:1}, *${pair:0:1}, *${pair:0:1}, *${pair:0:1}, *${pair:0:1}, *${pair:0:1}]"
        done
    } >bomb.yaml
    begin=$SECONDS
    refused 'bomb\.yaml:[12]' bomb.yaml
    [ $((SECONDS - begin)) -le 5 ]
}

@test "sizes that do not fit: heads and dim, batch and ranks, images and patches" {
    refused 'heads' config.yaml --set model.heads=3
    refused 'batch_size' config.yaml --set train.accumulate=5
    run ranks 2 quest-train config.yaml --set train.batch_size=25 --out refused
    one_error 2 'batch_size.*25'
    refused 'patch_size|image_size' config.yaml --set model.patch_size=5
    refused 'train\.h5: 10 classes, but model\.classes is 3' config.yaml --set model.classes=3
}

@test "a warm-up as long as the run, whose steps only the data tells" {
    write_config config.yaml # 10 steps an epoch
    run quest-train config.yaml --set train.steps=0 --set train.epochs=1 --set optim.warmup_steps=10 --out run
    one_error 2 'optim\.warmup_steps 10 is not less than the 10 steps of this run \(1 epochs of 240 images in batches of 24\)'
    [ ! -e run ]
    quest-train config.yaml --set train.steps=0 --set train.epochs=1 --set optim.warmup_steps=9 --out run
}

@test "images smaller than the patch grid, in either file; the directory can be used afterwards" {
    refused 'train\.h5: images have 16 x 16 pixels.*32 x 32.*image_size' config.yaml --set model.image_size=32
    quest-data synth shapes --out large.h5 --images 48 --size 32
    refused 'val\.h5: images have 16 x 16 pixels' config.yaml --set model.image_size=32 --set data.train=large.h5
    quest-train config.yaml --out refused --max-steps 1
}

@test "--resume of a model of another shape names the tensor or the key" {
    cp -r "$BATS_FILE_TMPDIR/start" run
    before=$(sha256sum run/checkpoints/* run/metrics.jsonl)
    other() { # PATTERN SETTING
        run ranks 2 quest-train config.yaml --set "$2" --out run --resume
        one_error 2 "step_00000001\.h5: $1"
    }
    other '/params/head\.weight has shape \[10, 32\], .* \[10, 64\]' model.dim=64
    other 'has no /params/blocks\.2\.' model.depth=3
    other '.*attention\.kind quest, the configuration says standard' attention.kind=standard
    [ "$(sha256sum run/checkpoints/* run/metrics.jsonl)" = "$before" ]
}

@test "datasets: missing, not HDF5, truncated, of another version, a label out of range, a mean that is no number" {
    refused 'gone\.h5' config.yaml --set data.train=gone.h5
    refused 'config\.yaml.*HDF5' config.yaml --set data.train=config.yaml
    cp "$BATS_FILE_TMPDIR/train.h5" cut.h5
    truncate -s 40000 cut.h5
    refused 'cut\.h5.*(truncated|damaged|end)' config.yaml --set data.train=cut.h5
    damage() { cp "$BATS_FILE_TMPDIR/train.h5" "$1" && edit_h5 "$1" "$2"; }
    damage version.h5 'f.attrs["version"] = 7'
    refused 'version\.h5.*version.*7' config.yaml --set data.train=version.h5
    damage label.h5 'f["labels"][17] = 99'
    refused 'label\.h5.*labels\[17\] = 99.*10 classes' config.yaml --set data.train=label.h5
    damage mean.h5 'f.attrs["mean"] = np.array([0.5, np.nan, 0.5], np.float32)'
    refused 'mean\.h5.*mean' config.yaml --set data.train=mean.h5
    refused 'mean\.h5.*mean' config.yaml --set data.val=mean.h5
    for file in config.yaml cut.h5 version.h5 label.h5 mean.h5; do
        run quest-data verify $file
        one_error 2 "$file: "
    done
}

@test "--init: a tensor missing, one too many, one of another shape, a file of another kind" {
    tensors() { # OUT STATEMENT: the parameters alone, changed (p is a dict)
        /usr/bin/python3 -c '
import sys, h5py, numpy as np
p = {name: tensor[...] for name, tensor in h5py.File(sys.argv[1])["params"].items()}
exec(sys.argv[3])
with h5py.File(sys.argv[2], "w") as out:
    for name in p: out["params/" + name] = p[name]' "$start" "$1" "$2"
    }
    tensors whole.h5 'pass'
    quest-train config.yaml --init whole.h5 --out accepted --max-steps 1
    tensors missing.h5 'del p["blocks.1.norm2.bias"]'
    refused 'missing\.h5.*blocks\.1\.norm2\.bias' config.yaml --init missing.h5
    tensors extra.h5 'p["blocks.2.norm2.bias"] = np.zeros(32, np.float32)'
    refused 'extra\.h5.*blocks\.2\.norm2\.bias' config.yaml --init extra.h5
    tensors shape.h5 'p["head.weight"] = np.zeros((7, 32), np.float32)'
    refused 'shape\.h5.*head\.weight.*7' config.yaml --init shape.h5
    refused 'config\.yaml' config.yaml --init config.yaml
    refused 'train\.h5' config.yaml --init "$BATS_FILE_TMPDIR/train.h5"
}

@test "several ranks with the same bad input say it once" {
    run ranks 4 quest-train config.yaml --set optim.lr=fast --out refused
    one_error 2 'optim\.lr'
    run ranks 3 quest-train config.yaml --set data.train=gone.h5 --out refused
    one_error 2 'gone\.h5'
    run ranks 3 quest-eval --checkpoint gone.h5 --data "$BATS_FILE_TMPDIR/val.h5"
    one_error 2 'gone\.h5'
}

@test "quest-eval: a checkpoint that is none, data with more classes than the model" {
    run quest-eval --checkpoint config.yaml --data "$BATS_FILE_TMPDIR/val.h5"
    one_error 2 'config\.yaml'
    run quest-eval --data "$BATS_FILE_TMPDIR/val.h5"
    [ "$status" = 2 ]
    cp "$BATS_FILE_TMPDIR/val.h5" more.h5
    edit_h5 more.h5 'f.attrs["classes"] = 12; f["labels"][0] = 11; f.__delitem__("class_names") if "class_names" in f else None'
    run quest-eval --checkpoint "$start" --data more.h5
    one_error 2 'classes|labels'
}

@test "a JPEG that cannot be decoded: skipped with a count in training, named by evaluation" {
    make_photos
    quest-data import-folder photos --out jpeg.h5 --encoding jpeg --size 16
    cp jpeg.h5 damaged.h5
    edit_h5 damaged.h5 'o = f["jpeg/offsets"][...]; b = f["jpeg/bytes"]; b[int(o[5]) : int(o[6])] = np.zeros(int(o[6] - o[5]), np.uint8)'
    quest-train config.yaml --set data.train=damaged.h5 --set data.val=jpeg.h5 --out run --max-steps 4
    [ "$(json run/metrics.jsonl 'sum(x.get("skipped_images", 0) for x in d)')" -ge 1 ]
    quest-data verify jpeg.h5
    run quest-data verify damaged.h5
    one_error 2 'damaged\.h5: 1 of 48 images.*image 5'
    quest-train config.yaml --set data.train=jpeg.h5 --set data.val=damaged.h5 --set train.eval_every=2 --out damaged_val --max-steps 2 >log 2>&1
    cat log
    grep -q '^warning: damaged or too small images left out of the evaluation: 1 .*verify damaged\.h5' log
    [ "$(json damaged_val/metrics.jsonl '[(x["images"], x["skipped_images"]) for x in d if "split" in x]')" = '[(47, 1)]' ]
    run quest-eval --checkpoint run/checkpoints/step_00000004.h5 --data damaged.h5
    one_error '1|2' 'damaged\.h5.*\b5\b'
    # not one is whole: training has nothing to take instead, an evaluation nothing to count
    cp jpeg.h5 none.h5
    edit_h5 none.h5 'f["jpeg/bytes"][...] = 0'
    run quest-train config.yaml --set data.train=none.h5 --set data.val=jpeg.h5 --out nothing
    one_error '1|2' 'none\.h5: image [0-9]+ is a damaged'
    [[ $output != *MPI_ABORT* ]]
    quest-train config.yaml --set data.train=jpeg.h5 --set data.val=none.h5 --set train.eval_every=2 --out none_val --max-steps 2
    [ "$(json none_val/metrics.jsonl '[(x["images"], x["skipped_images"]) for x in d if "split" in x]')" = '[(0, 48)]' ]
}
