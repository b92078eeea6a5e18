# Optimisers other than AdamW, and learning rates by layer: runs that stop and go on, on any number of ranks, and refusals.
load helpers

setup_file() {
    make_datasets
    write_config "$BATS_FILE_TMPDIR/config.yaml"
}

setup() {
    cd "$BATS_TEST_TMPDIR" || return 1
    config=$BATS_FILE_TMPDIR/config.yaml
}

with() { # KIND: the settings of a run with it
    case $1 in
    lamb) echo --set optim.kind=lamb --set optim.lr=0.01 --set optim.layer_decay=0.9 ;;
    sgd) echo --set optim.kind=sgd --set optim.lr=0.1 --set optim.weight_decay=1e-4 ;;
    *muon) echo --set "optim.kind=$1" --set optim.lr=0.02 --set optim.momentum=0.95 --set optim.layer_decay=0.9 --set model.layer_scale=0.1 ;;
    esac
}

# goes_on KIND: stopped twice, the second time on other ranks
goes_on() {
    local settings
    read -ra settings <<<"$(with "$1")"
    ranks 2 quest-train "$config" "${settings[@]}" --out whole
    ranks 2 quest-train "$config" "${settings[@]}" --out run --max-steps 7
    ranks 2 quest-train "$config" "${settings[@]}" --out run --resume
    same_state run/checkpoints/step_00000030.h5 whole/checkpoints/step_00000030.h5
    losses_agree run whole 0 30
    ranks 1 quest-train "$config" "${settings[@]}" --out other --max-steps 11
    ranks 4 quest-train "$config" "${settings[@]}" --out other --resume
    losses_agree other whole 1e-4 30
}

@test "LAMB: a run that stops and goes on is the whole run, on any number of ranks" {
    goes_on lamb
}

@test "SGD: a run that stops and goes on is the whole run, on any number of ranks" {
    goes_on sgd
}

@test "Muon and NMuon: a run that stops and goes on is the whole run, on any number of ranks; they are two" {
    goes_on muon
    mv whole muon && rm -r run other
    goes_on nmuon
    run losses_agree whole muon 1e-4 30
    [ "$status" != 0 ]
    # v is of what AdamW moves, which no matrix is
    /usr/bin/python3 - <<'PYTHON'
import h5py
v = h5py.File("muon/checkpoints/step_00000030.h5")["adamw/v"]
matrices = {name for name, x in v.items() if x.ndim > 1 and name not in ("cls_token", "pos_embed")}
assert len(matrices) == 10 and {name for name, x in v.items() if not x[...].any()} == matrices
PYTHON
}

@test "Muon on ranks whose processors round differently is refused, AdamW is not" {
    read -ra settings <<<"$(with muon)"
    mixed() {
        mpirun -q -np 1 quest-train "$config" "$@" --out run : \
            -np 1 -x ONEDNN_MAX_CPU_ISA=SSE41 quest-train "$config" "$@" --out run </dev/null
    }
    run mixed "${settings[@]}"
    one_error 2 'rank 1 .*optim\.kind muon: matrix products round otherwise than on rank 0'
    run -0 mixed "${settings[@]}" --set optim.kind=adamw --set optim.momentum=0.9
    ranks 2 quest-train "$config" "${settings[@]}" --out alike --max-steps 1
}

@test "they learn a few images by heart" {
    quest-data synth shapes --out few.h5 --images 24 --size 16 --seed 4
    for kind in lamb sgd muon nmuon; do
        read -ra settings <<<"$(with $kind)"
        quest-train "$config" "${settings[@]}" --set data.train=few.h5 --set data.val= --set optim.schedule=constant \
            --set data.augment.flip=false --set data.augment.crop_padding=0 --set train.steps=200 --out $kind
        json $kind/metrics.jsonl '(d[0]["loss"], d[-1]["loss"])'
        [ "$(json $kind/metrics.jsonl 'd[-1]["loss"] < d[0]["loss"] / 4')" = True ]
    done
}

@test "what is frozen keeps its bits, and the rest moves" {
    quest-train "$config" --set checkpoint.every=1 --out first --max-steps 1
    for kind in lamb sgd; do
        read -ra settings <<<"$(with $kind)"
        quest-train "$config" "${settings[@]}" --set model.freeze=1 --init first/checkpoints/step_00000001.h5 \
            --out $kind --max-steps 3
        /usr/bin/python3 - $kind <<'PYTHON'
import sys, h5py
first, then = h5py.File("first/checkpoints/step_00000001.h5"), h5py.File(f"{sys.argv[1]}/checkpoints/step_00000003.h5")
frozen = [name for name in first["params"] if (first["params"][name][...] == then["params"][name][...]).all()]
expected = [n for n in first["params"] if n.startswith(("blocks.0.", "patch_embed.")) or n in ("cls_token", "pos_embed")]
assert sorted(frozen) == sorted(expected), (frozen, expected)
PYTHON
    done
}

@test "a checkpoint of another optimiser is not gone on from, but its weights may be begun with" {
    quest-train "$config" --set checkpoint.every=2 --out run --max-steps 2
    run quest-train "$config" --set optim.kind=lamb --out run --resume
    one_error 2 'step_00000002\.h5: .*optim\.kind adamw, the configuration says lamb.*--init'
    quest-train "$config" --set optim.kind=sgd --init run/checkpoints/step_00000002.h5 --out other --max-steps 1
    run quest-train "$config" --set optim.kind=sgd --out run --resume
    one_error 2 'optim\.kind adamw, the configuration says sgd'
}

@test "optim.layer_decay: AdamW's first step moves each layer's biases by its own rate" {
    quest-train "$config" --set optim.layer_decay=0.5 --set optim.warmup_steps=0 --set optim.clip_grad_norm=0 \
        --set optim.schedule=constant --out run --max-steps 1
    /usr/bin/python3 - <<'PYTHON'
import h5py
f = h5py.File("run/checkpoints/step_00000001.h5")
for name, scale in {"head.bias": 1, "norm.bias": 0.5, "blocks.1.norm1.bias": 0.5, "blocks.0.mlp.fc2.bias": 0.25}.items():
    moved = abs(f["params"][name][...]).max()
    print(name, moved)
    assert abs(moved / (1e-3 * scale) - 1) < 1e-3, name
PYTHON
}

@test "keys of another optimiser are refused" {
    run quest-train "$config" --set optim.trust_clip=true --out run
    one_error 2 'optim\.trust_clip=true: is for optim\.kind: lamb, and this is adamw'
    run quest-train "$config" --set optim.kind=lamb --set optim.momentum=0.8 --out run
    one_error 2 'optim\.momentum=0\.8: is for optim\.kind: sgd, muon and nmuon, and this is lamb'
    run quest-train "$config" --set optim.kind=sgd --set optim.momentum=1 --out run
    one_error 2 'optim\.momentum=1: .1. is out of range'
    run quest-train "$config" --set optim.layer_decay=0 --out run
    one_error 2 'optim\.layer_decay=0: .0. is out of range'
    [ ! -e run ]
}
