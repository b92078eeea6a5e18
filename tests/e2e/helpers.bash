# Loaded by every .bats file: `load helpers`. Tests run in a temporary folder of their own, with tiny models.
. "$BATS_TEST_DIRNAME/../environment.sh"
bats_require_minimum_version 1.5.0

# Runs before each file's tests: datasets of 16x16 images, drawn once, in the file's temporary folder.
make_datasets() {
    cd "$BATS_FILE_TMPDIR" || return 1
    quest-data synth shapes --out train.h5 --images 240 --size 16 --seed 1
    quest-data synth shapes --out val.h5 --images 53 --size 16 --seed 2 --split test
}

# photos/{a,b}: 48 small files of noise
make_photos() {
    /usr/bin/python3 - <<'PYTHON'
import numpy as np, os
random = np.random.default_rng(3)
for index in range(48):
    folder = f"photos/{'ab'[index % 2]}"
    os.makedirs(folder, exist_ok=True)
    with open(f"{folder}/{index:02d}.ppm", "wb") as file:
        file.write(b"P6 20 20 255\n" + random.integers(0, 256, (20, 20, 3), np.uint8).tobytes())
PYTHON
}

# write_config FILE: 30 steps of 24 of 240 images, so an epoch is 10 steps; tests change single keys with --set
write_config() {
    cat >"$1" <<YAML
model: {image_size: 16, patch_size: 4, dim: 32, depth: 2, heads: 2}
attention: {kind: quest}
data: {train: $BATS_FILE_TMPDIR/train.h5, val: $BATS_FILE_TMPDIR/val.h5, augment: {flip: true, crop_padding: 2}}
train: {steps: 30, batch_size: 24, eval_every: 1000, seed: 7}
optim: {lr: 1.0e-3, warmup_steps: 5, clip_grad_norm: 1.0}
log: {every: 1}
norms: {every: 5}
checkpoint: {every: 10, keep: 3}
YAML
}

# ranks N PROGRAM ARGUMENT...: without mpirun's own banners
ranks() {
    local count=$1
    shift
    mpirun -q -np "$count" "$@" </dev/null
}

# same_state A.h5 B.h5: parameters, moments and step are equal bit for bit
same_state() {
    /usr/bin/python3 - "$1" "$2" <<'PYTHON'
import sys, h5py, numpy
first, second = (h5py.File(path) for path in sys.argv[1:])
def tensors(file):
    found = {}
    file.visititems(lambda name, item: found.__setitem__(name, item[...]) if isinstance(item, h5py.Dataset) else None)
    return found
a, b = tensors(first), tensors(second)
assert a.keys() == b.keys() and any(name.startswith("params/") for name in a), "tensors differ"
assert any(name.startswith("adamw/m/") for name in a), "no moments"
assert first.attrs["step"] == second.attrs["step"], "steps differ"
different = [name for name in a if a[name].tobytes() != b[name].tobytes()]
assert not different, f"bits differ: {different}"
PYTHON
}

# losses_agree RUN_A RUN_B TOLERANCE STEPS: every step's loss, relative; both runs hold exactly steps 1..STEPS
losses_agree() {
    /usr/bin/python3 - "$@" <<'PYTHON'
import json, sys
def losses(run):
    lines = [json.loads(line) for line in open(f"{run}/metrics.jsonl")]
    return [(line["step"], line["loss"]) for line in lines if "grad_norm" in line]
a, b, tolerance, steps = losses(sys.argv[1]), losses(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
assert [step for step, _ in a] == [step for step, _ in b] == list(range(1, steps + 1)), (a, b)
worst = max(abs(x - y) / abs(y) for (_, x), (_, y) in zip(a, b))
print(f"largest relative difference: {worst:.2e}")
assert worst <= tolerance
PYTHON
}

# json FILE EXPRESSION: python over `d` (the object, or the list of a .jsonl file's objects). Where that fails it prints what no
# other call prints: two failures are not equal.
json() {
    /usr/bin/python3 -c '
import json, sys
text = open(sys.argv[1]).read()
d = [json.loads(line) for line in text.splitlines()] if sys.argv[1].endswith("l") else json.loads(text)
print(eval(sys.argv[2]))' "$1" "$2" || { echo "no answer for process $BASHPID" && return 1; }
}

# edit_h5 FILE STATEMENT: python over `f`, the file opened for writing, and numpy as np
edit_h5() {
    /usr/bin/python3 -c '
import sys, h5py, numpy as np
with h5py.File(sys.argv[1], "r+") as f: exec(sys.argv[2])' "$1" "$2"
}

# wait_for SECONDS COMMAND...: until it succeeds
wait_for() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt $deadline ] || { echo "gave up waiting for: $*" && return 1; }
        sleep 0.1
    done
}

# logged RUN STEP: whether the run has logged that step
logged() { grep -q "\"step\": *$2," "$1/metrics.jsonl" 2>/dev/null; }

# one_error STATUS PATTERN: `run` ended with that status and exactly one line "error: ..."; both are regular expressions
one_error() {
    echo "status $status, output:" && echo "$output"
    [[ $status =~ ^($1)$ ]] && [ "$(grep -c '^error: ' <<<"$output")" = 1 ] && grep -qE "^error: .*($2)" <<<"$output"
}

# make_faulty: faulty.h5 (240 images) and faulty_start.h5 (parameters), in which exactly one number overflows in exactly one
# image: the 64th of the file, so in the third step of 24. Its patches are bright where the others' are black, which one
# coordinate of the residual stream carries to a huge weight of the second block's fc1 (of three blocks: in the last one the
# patches get no further than the keys and values); the parameters stay as they are at optim.lr=1e-36.
make_faulty() {
    quest-data synth shapes --out faulty.h5 --images 240 --size 16 --seed 1
    quest-train "$1" --set model.depth=3 --out faulty_run --max-steps 1
    /usr/bin/python3 - <<'PYTHON'
import h5py, numpy as np
with h5py.File("faulty.h5", "r+") as f:
    images = f["images"][...]
    images[:, ::4, ::4, 0] = 0
    images[63, ::4, ::4, 0] = 255
    f["images"][...] = images
    f.attrs["mean"], f.attrs["std"] = np.zeros(3, "f4"), np.full(3, 0.25, "f4")
with h5py.File("faulty_run/checkpoints/step_00000001.h5") as f, h5py.File("faulty_start.h5", "w") as out:
    p = {name: tensor[...] for name, tensor in f["params"].items()}
    p["patch_embed.proj.weight"][5] = 0
    p["patch_embed.proj.weight"][5, 0, 0, 0] = 1e4
    p["blocks.1.norm2.weight"][:], p["blocks.1.norm2.bias"][:] = 1, 0
    p["blocks.1.mlp.fc1.weight"][3] = 0
    p["blocks.1.mlp.fc1.weight"][3, 5] = 1e38
    p["blocks.1.mlp.fc2.weight"][:, 3] = 0
    for name, tensor in p.items():
        out[f"params/{name}"] = tensor
PYTHON
}
