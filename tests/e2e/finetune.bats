# Fine-tuning: --init from a model of another resolution, or of other classes.
load helpers
setup_file() {
    make_datasets
    cd "$BATS_FILE_TMPDIR" || return 1
    quest-data synth shapes --out large.h5 --images 240 --size 24 --seed 1 # 6 x 6 patches where train.h5 has 4 x 4
    write_config config.yaml
    quest-train config.yaml --set train.steps=10 --set data.val= --out pretrained
}
setup() {
    cd "$BATS_TEST_TMPDIR" || return 1
    write_config config.yaml
    start=$BATS_FILE_TMPDIR/pretrained/checkpoints/step_00000010.h5
    large=(--set "data.train=$BATS_FILE_TMPDIR/large.h5" --set data.val= --set model.image_size=24)
    twelve=(--set model.classes=12)
    still=(--set optim.lr=1.0e-36 --set optim.warmup_steps=0 --max-steps 1)
}

# tensors OUT STATEMENT: the parameters alone, changed (p is a dict)
tensors() {
    /usr/bin/python3 -c '
import sys, h5py, numpy as np
p = {name: tensor[...] for name, tensor in h5py.File(sys.argv[1])["params"].items()}
exec(sys.argv[3])
with h5py.File(sys.argv[2], "w") as out:
    for name in p: out["params/" + name] = p[name]' "$start" "$1" "$2"
}

refused() { # PATTERN OPTION...
    local pattern=$1
    shift
    run quest-train config.yaml "$@" --out refused
    one_error 2 "$pattern"
    [ ! -e refused/checkpoints ] || [ -z "$(ls refused/checkpoints)" ]
}

@test "another resolution and other classes: said, and the same first parameters on any number of ranks" {
    run --separate-stderr quest-train config.yaml "${large[@]}" "${twelve[@]}" "${still[@]}" --init "$start" --out one
    [ "$status" = 0 ]
    [ "$(grep -cF 'position table: 4 x 4 -> 6 x 6, resampled' <<<"$output")" = 1 ]
    [ "$(grep -cF "head: 10 classes in $start, 12 here: starts anew" <<<"$output")" = 1 ]
    ranks 2 quest-train config.yaml "${large[@]}" "${twelve[@]}" "${still[@]}" --init "$start" --out two >/dev/null
    quest-train config.yaml "${large[@]}" "${twelve[@]}" "${still[@]}" --out fresh >/dev/null
    /usr/bin/python3 - "$start" <<'PYTHON'
import sys, h5py, numpy as np
start, one, two, fresh = (h5py.File(path)["params"] for path in
    [sys.argv[1]] + [f"{run}/checkpoints/step_00000001.h5" for run in ("one", "two", "fresh")])
def same(a, b):  # but for one step of 1e-36, which only shows where a number was zero
    return a.shape == b.shape and np.abs(a[...].astype(float) - b[...]).max() <= 2e-36
for name in one:
    assert same(one[name], two[name]), name
    if name != "pos_embed":
        assert same(one[name], (fresh if name.startswith("head.") else start)[name]), name
assert one["head.weight"].shape == (12, 32) and one["pos_embed"].shape == (1, 37, 32)
old, new = start["pos_embed"][...][0].astype(float), one["pos_embed"][...][0]
assert (new[0] == old[0]).all()
def bicubic(x):  # Keys, a = -0.5; no antialiasing where the table grows
    return (1.5 * x - 2.5) * x * x + 1 if x < 1 else (((x - 5) * x + 8) * x - 4) * -0.5 if x < 2 else 0
w = np.array([[bicubic(abs(i + 0.5 - (o + 0.5) * 4 / 6)) for i in range(4)] for o in range(6)])
w /= w.sum(1, keepdims=True)
want = np.einsum("yi,xj,ijd->yxd", w, w, old[1:].reshape(4, 4, -1)).reshape(36, -1)
assert np.abs(want - new[1:]).max() < 1e-6, np.abs(want - new[1:]).max()
PYTHON
}

@test "a fine-tuning run is the same on one and two ranks, and when it is resumed" {
    options=("${large[@]}" "${twelve[@]}" --set train.steps=10)
    quest-train config.yaml "${options[@]}" --init "$start" --out one
    ranks 2 quest-train config.yaml "${options[@]}" --init "$start" --out two
    losses_agree two one 1e-4 10
    quest-train config.yaml "${options[@]}" --init "$start" --out parts --max-steps 4
    quest-train config.yaml "${options[@]}" --out parts --resume
    same_state one/checkpoints/step_00000010.h5 parts/checkpoints/step_00000010.h5
    quest-train config.yaml "${options[@]}" --out fresh
    run losses_agree fresh one 1e-4 10
    [ "$status" != 0 ]
}

@test "a linear probe on resampled weights: a new head is trained, and nothing else" {
    quest-train config.yaml "${large[@]}" "${twelve[@]}" "${still[@]}" --init "$start" --out untrained
    quest-train config.yaml "${large[@]}" "${twelve[@]}" --set model.freeze=all_but_head --max-steps 4 --init "$start" --out probe
    /usr/bin/python3 - <<'PYTHON'
import h5py, numpy as np
untrained, probe = (h5py.File(f"{run}/checkpoints/step_0000000{step}.h5")["params"]
                    for run, step in (("untrained", 1), ("probe", 4)))
for name in probe:
    moved = np.abs(probe[name][...].astype(float) - untrained[name][...]).max()
    assert moved > 1e-5 if name.startswith("head.") else moved <= 2e-36, (name, moved)
PYTHON
}

@test "the same resolution and classes: nothing is resampled, nothing said" {
    run --separate-stderr quest-train config.yaml "${still[@]}" --init "$start" --out run
    [ "$status" = 0 ]
    [[ "$output" != *resampled* && "$output" != *anew* ]]
}

@test "a table without a row for CLS, as DeiT III has it: zeros there, and the model is the same" {
    tensors zero.h5 'p["pos_embed"][:, 0] = 0'
    tensors without.h5 'p["pos_embed"] = p["pos_embed"][:, 1:]'
    for options in "" "--set model.image_size=24 --set data.train=$BATS_FILE_TMPDIR/large.h5 --set data.val="; do
        # shellcheck disable=SC2086 # none of these has a blank
        for name in zero without; do
            quest-train config.yaml $options --max-steps 2 --init $name.h5 --out $name | tee $name.txt
        done
        same_state zero/checkpoints/step_00000002.h5 without/checkpoints/step_00000002.h5
        grep -qE 'position table: 4 x 4 without CLS -> (4 x 4|6 x 6), resampled' without.txt
        rm -r zero without
    done
}

@test "what is no fine-tuning is refused: width, depth, patches, a table without a grid, half a head" {
    refused 'pretrained.*/params/head\.weight has shape \[10, 32\], the model.s is \[12, 64\]' \
        --set model.dim=64 "${twelve[@]}" "${large[@]}" --init "$start"
    refused 'has no /params/blocks\.2\.' --set model.depth=3 "${twelve[@]}" "${large[@]}" --init "$start"
    refused 'holds /params/blocks\.1\.' --set model.depth=1 "${twelve[@]}" "${large[@]}" --init "$start"
    refused '/params/patch_embed\.proj\.weight has shape \[32, 3, 4, 4\], the model.s is \[32, 3, 8, 8\]' \
        --set model.patch_size=8 --init "$start"
    tensors odd.h5 'p["pos_embed"] = p["pos_embed"][:, 2:]'
    refused 'odd\.h5: /params/pos_embed has 15 rows, the model.s 37; a square grid' "${large[@]}" --init odd.h5
    tensors half.h5 'p["head.bias"] = np.zeros(7, np.float32)'
    refused 'half\.h5: /params/head\.bias has shape \[7\], the model.s is \[10\]' --init half.h5
    tensors wide.h5 'p["pos_embed"] = np.zeros((1, 17, 48), np.float32)'
    refused 'wide\.h5: /params/pos_embed has shape \[1, 17, 48\], the model.s is \[1, 37, 32\]' "${large[@]}" --init wide.h5
    /usr/bin/python3 -c '
import h5py
with h5py.File("wide.h5", "r+") as f:
    del f["params/pos_embed"]
    f.create_dataset("params/pos_embed", shape=(1, 1 + (1 << 24), 32), chunks=(1, 64, 32), dtype="f4")'
    refused 'wide\.h5: /params/pos_embed has 16777217 rows' "${large[@]}" --init wide.h5
}
