# model.freeze: what is frozen keeps the bits of the file that it came from, on any number of ranks and over a stop.
load helpers
setup_file() {
    make_datasets
    write_config config.yaml
    quest-train config.yaml --set model.depth=3 --set model.layer_scale=0.1 --set train.steps=6 --out first
}
setup() {
    cd "$BATS_TEST_TMPDIR" || return 1
    config=$BATS_FILE_TMPDIR/config.yaml
    start=$BATS_FILE_TMPDIR/first/checkpoints/step_00000006.h5
    options=(--init "$start" --set model.depth=3 --set model.layer_scale=0.1 --set optim.weight_decay=0.5
        --set optim.lr=1.0e-2 --set train.steps=12)
}

# only_trained FILE PATTERN: against the start every tensor that the regular expression names has other numbers, all others the
# same bits and no moments
only_trained() {
    /usr/bin/python3 - "$start" "$1" "$2" <<'PYTHON'
import re, sys, h5py
before, after = (h5py.File(path) for path in sys.argv[1:3])
wrong = []
for name, tensor in before["params"].items():
    trained = bool(re.match(sys.argv[3], name))
    now = after["params"][name][...]
    same = now.tobytes() == tensor[...].tobytes()
    moments = any(after["adamw"][kind][name][...].any() for kind in "mv")
    if same == trained or moments != trained:
        wrong.append(name)
assert not wrong, f"against '{sys.argv[3]}': {wrong}"
assert any(re.match(sys.argv[3], name) for name in before["params"])
PYTHON
}

@test "what is frozen keeps its bits, the rest is trained, on 1 and 2 ranks" {
    trained=(0 'head|norm\.|blocks' 2 'head|norm\.|blocks\.2' 3 'head|norm\.' all_but_head head)
    for ((i = 0; i < ${#trained[@]}; i += 2)); do
        freeze=${trained[i]}
        quest-train "$config" "${options[@]}" --set "model.freeze=$freeze" --out "$freeze.1" >log
        grep -q "^model.freeze $freeze: of these parameters 0\.0[0-9] M are trained" log
        ranks 2 quest-train "$config" "${options[@]}" --set "model.freeze=$freeze" --set comm.bucket_mib=0.01 --out "$freeze.2"
        losses_agree "$freeze.2" "$freeze.1" 1e-4 12
        only_trained "$freeze.1/checkpoints/step_00000012.h5" "${trained[i + 1]}"
        only_trained "$freeze.2/checkpoints/step_00000012.h5" "${trained[i + 1]}"
    done
    # of three layers two are frozen; the gradient's norm is that of what is trained
    [ "$(json 2.1/norms.jsonl 'sorted({(x["layer"], x["qkv_grad_norm"] > 0) for x in d})')" = "[(0, False), (1, False), (2, True)]" ]
    quest-train "$config" "${options[@]}" --out all
    # the first step still has the same parameters: more of them, a larger norm
    norm() { json "$1/metrics.jsonl" '[x["grad_norm"] for x in d if x["step"] == 1][0]'; }
    /usr/bin/python3 -c "assert 0 < $(norm all_but_head.1) < $(norm 3.1) < $(norm 2.1) < $(norm 0.1) < $(norm all)"
}

@test "every optimiser leaves what is frozen" {
    for kind in lamb sgd muon; do
        quest-train "$config" "${options[@]}" --set model.freeze=2 --set optim.kind=$kind --out $kind
        only_trained $kind/checkpoints/step_00000012.h5 'head|norm\.|blocks\.2'
    done
}

@test "a frozen run goes on after a stop with the same bits, with recomputation and bf16 on the wire too" {
    options+=(--set model.freeze=1 --set train.recompute=true --set train.accumulate=2 --set comm.dtype=bf16)
    ranks 2 quest-train "$config" "${options[@]}" --out whole
    ranks 2 quest-train "$config" "${options[@]}" --out parts --max-steps 7
    ranks 2 quest-train "$config" "${options[@]:2}" --out parts --resume
    same_state parts/checkpoints/step_00000012.h5 whole/checkpoints/step_00000012.h5
    only_trained parts/checkpoints/step_00000012.h5 'head|norm\.|blocks\.[12]'
}

@test "what cannot be frozen" {
    for value in -1 1.5 first 4 007 all all_but_heads; do
        run quest-train "$config" "${options[@]}" --set "model.freeze=$value" --out refused
        one_error 2 "model\.freeze=$value: '$value' .*all_but_head, or a whole number from 0 to model\.depth 3"
        [ ! -e refused ]
    done
    run quest-train "$config" "${options[@]}" --set model.freeze=all --out refused
    one_error 2 'leaves nothing to train'
    run quest-train "$config" "${options[@]}" --set model.freeze=4 --out refused
    one_error 2 'is more than model\.depth'
}
