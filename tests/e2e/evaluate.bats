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
