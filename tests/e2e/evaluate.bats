# quest-eval: every image once, on any number of ranks, in file order.
load helpers
setup_file() {
    make_datasets
    cd "$BATS_FILE_TMPDIR" || return 1
    write_config config.yaml
    quest-train config.yaml --out run
}
setup() {
    cd "$BATS_TEST_TMPDIR" || return 1
    checkpoint=$BATS_FILE_TMPDIR/run/checkpoints/step_00000030.h5
    val=$BATS_FILE_TMPDIR/val.h5
}

@test "1, 2 and 3 ranks give the same result on 53 images, and the logits are in file order" {
    for n in 1 2 3; do
        ranks $n quest-eval --checkpoint "$checkpoint" --data "$val" --json $n.json --logits $n.h5
    done
    /usr/bin/python3 - "$val" <<'PYTHON'
import json, sys, h5py, numpy as np
labels = h5py.File(sys.argv[1])["labels"][...]
reports = [json.load(open(f"{n}.json")) for n in (1, 2, 3)]
logits = [h5py.File(f"{n}.h5")["logits"][...] for n in (1, 2, 3)]
for report, x in zip(reports, logits):
    assert x.shape == (53, 10) and x.dtype == np.float32
    assert np.abs(x - logits[0]).max() <= 1e-5 * np.abs(x).max()
    order = np.argsort(-x, axis=1)
    shifted = x.astype(float) - x.max(axis=1, keepdims=True)
    loss = (np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(53), labels]).mean()
    assert report["images"] == 53
    assert abs(report["top1"] - (order[:, 0] == labels).mean()) < 1e-6, report
    assert abs(report["top5"] - (order[:, :5] == labels[:, None]).any(axis=1).mean()) < 1e-6, report
    assert abs(report["loss"] - loss) < 1e-5 * loss, (report, loss)
PYTHON
}

@test "it agrees with the evaluation at the end of training" {
    ranks 2 quest-eval --checkpoint "$checkpoint" --data "$val" --json eval.json
    logged=$(json "$BATS_FILE_TMPDIR/run/metrics.jsonl" '[(x["top1"], x["top5"]) for x in d if "top5" in x][-1]')
    [ "$(json eval.json '(d["top1"], d["top5"])')" = "$logged" ]
}

@test "without --json the result is printed" {
    run -0 quest-eval --checkpoint "$checkpoint" --data "$val"
    [[ $output == *top1* || $output == *top-1* ]]
    [[ $output == *53* ]]
}

@test "an output that is one of the inputs, or cannot be written, is refused before anything is computed" {
    cp "$val" images.h5
    ln -s images.h5 link.h5
    for option in --json --logits; do
        run quest-eval --checkpoint "$checkpoint" --data images.h5 $option link.h5
        one_error 2 'link\.h5: is read by this evaluation'
        run quest-eval --checkpoint "$checkpoint" --data images.h5 $option "$checkpoint"
        one_error 2 'is read by this evaluation'
        run ranks 2 quest-eval --checkpoint "$checkpoint" --data images.h5 $option nowhere/out
        one_error 2 'nowhere/out: cannot be written: No such file'
    done
    run quest-eval --checkpoint "$checkpoint" --data images.h5 --json out --logits out
    one_error 2 'both'
    cmp images.h5 "$val"
    for _ in once again; do quest-eval --checkpoint "$checkpoint" --data images.h5 --json out; done
}

@test "classes go by their names: a file that numbers them differently is evaluated alike, unknown ones are refused" {
    cp "$val" reversed.h5
    edit_h5 reversed.h5 'f["class_names"][...] = f["class_names"][...][::-1]; f["labels"][...] = 9 - f["labels"][...]'
    cp "$val" foreign.h5
    edit_h5 foreign.h5 'f["class_names"][3] = "zebra"'
    quest-eval --checkpoint "$checkpoint" --data "$val" --json as_is.json
    quest-eval --checkpoint "$checkpoint" --data reversed.h5 --json reversed.json
    cmp as_is.json reversed.json
    run quest-eval --checkpoint "$checkpoint" --data foreign.h5
    one_error 2 "foreign\.h5: its class 'zebra' is not one of those of .*step_00000030"
    write_config config.yaml
    run quest-train config.yaml --set data.val=foreign.h5 --out run
    one_error 2 "foreign\.h5: its class 'zebra' is not one of those of .*train\.h5"
    [ ! -e run ]
    quest-train config.yaml --set data.val=reversed.h5 --set train.steps=30 --out run
    logged=$(json run/metrics.jsonl '[x["top1"] for x in d if "top5" in x][-1]')
    [ "$(json as_is.json 'd["top1"]')" = "$logged" ]
}
