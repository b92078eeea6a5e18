# What follows an event: updates that are skipped, runs that go back, and where a NaN came from.
load helpers
setup_file() {
    make_datasets
    write_config config.yaml
    make_faulty config.yaml
}
setup() {
    cd "$BATS_TEST_TMPDIR" || return 1
    config=$BATS_FILE_TMPDIR/config.yaml
}

faulty() { # RANKS ARGUMENT...: the run in which step 3 overflows in layer 1 (helpers.bash)
    local count=$1
    shift
    ranks "$count" quest-train "$config" --init "$BATS_FILE_TMPDIR/faulty_start.h5" \
        --set data.train="$BATS_FILE_TMPDIR/faulty.h5" --set data.shuffle=false --set data.augment.flip=false \
        --set data.augment.crop_padding=0 --set model.depth=3 --set optim.lr=1e-36 "$@"
}

events() { json "$1/events.jsonl" "[x['step'] for x in d if x['kind'] == '$2']"; }
attribute() { /usr/bin/python3 -c 'import sys, h5py; print(h5py.File(sys.argv[1]).attrs[sys.argv[2]])' "$1" "$2"; }

# ---- skipping ----

skipping=(--set diagnosis.skip_z=1.5 --set train.steps=60)

@test "skip: outliers change nothing, are events and are counted; no other step is skipped" {
    ranks 2 quest-train "$config" "${skipping[@]}" --set checkpoint.every=1 --set checkpoint.keep=100 --set log.every=3 --out run
    skipped=$(events run update_skipped)
    echo "skipped: $skipped"
    [ "$(json run/events.jsonl 'all(x["value"] > x["threshold"] > 0 for x in d if x["kind"] == "update_skipped")')" = True ]
    [ "$(json run/metrics.jsonl 'sum(x["skipped_updates"] for x in d if "grad_norm" in x)')" = "$(grep -c update_skipped run/events.jsonl)" ]
    /usr/bin/python3 - "$skipped" <<'PYTHON'
import ast, h5py, sys
skipped = ast.literal_eval(sys.argv[1])
assert 2 <= len(skipped) <= 20 and min(skipped) >= 34, skipped
def state(step):
    with h5py.File(f"run/checkpoints/step_{step:08d}.h5") as f:
        return b"".join(f[g][n][...].tobytes() for g in ("params", "adamw/m", "adamw/v") for n in f[g])
same = [step for step in range(2, 61) if state(step) == state(step - 1)]
assert same == skipped, (same, skipped)
PYTHON
}

@test "skip: stopped in the window and resumed, twice, gives the bits of a run that never stopped" {
    ranks 2 quest-train "$config" "${skipping[@]}" --out whole
    ranks 2 quest-train "$config" "${skipping[@]}" --out run --max-steps 36
    ranks 2 quest-train "$config" "${skipping[@]}" --out run --resume --max-steps 37
    ranks 2 quest-train "$config" "${skipping[@]}" --out run --resume
    [ "$(events whole update_skipped)" != "[]" ]
    [ "$(events run update_skipped)" = "$(events whole update_skipped)" ]
    same_state run/checkpoints/step_00000060.h5 whole/checkpoints/step_00000060.h5
    losses_agree run whole 0 60
}

@test "skip: one rank and two skip the same steps" {
    for n in 1 2; do ranks $n quest-train "$config" "${skipping[@]}" --out run$n; done
    [ "$(events run1 update_skipped)" = "$(events run2 update_skipped)" ]
    losses_agree run1 run2 1e-4 60
}

@test "skip_z without the diagnosis is refused" {
    run quest-train "$config" --set diagnosis.skip_z=6 --set diagnosis.enabled=false --out run
    one_error 2 'diagnosis\.skip_z.*diagnosis\.enabled'
}

# ---- going back ----

# Standard attention at a high rate: the largest logit rises from step 4 on and passes 0.2, a tenth of the limit, at step
# 8: a warning. At a hundredth of the rate it does not.
rising=(--set attention.kind=standard --set optim.lr=3e-3 --set optim.clip_grad_norm=0 --set norms.every=1
    --set diagnosis.logit_critical=2 --set diagnosis.on_warning=rewind --set diagnosis.on_critical=rewind --set diagnosis.rewind_lr_scale=0.01 --set checkpoint.every=2)

@test "rewind: two ranks go back to before the event, at a lower rate, and no step stands in the logs twice" {
    ranks 2 quest-train "$config" "${rising[@]}" --out run >log
    cat log
    [ "$(json run/metrics.jsonl '[x["step"] for x in d if "grad_norm" in x] == list(range(1, 31))')" = True ]
    [ "$(json run/norms.jsonl '[x["step"] for x in d] == sorted(2 * list(range(1, 31)))')" = True ]
    back=$(json run/events.jsonl '[x["step"] for x in d if x["kind"] == "rewind"][0]')
    warned=$(json run/events.jsonl '[x for x in d if x["kind"] == "logit_explosion"][0]["step"]')
    since=$(json run/events.jsonl '[x for x in d if x["kind"] == "rewind"][0]["since"]')
    echo "warned at $warned, since $since, back to $back"
    [ "$back $since $warned" = "2 4 8" ]
    [ "$(grep -c '"rewind"' run/events.jsonl)" = 1 ]
    # what was cut is kept
    [ "$(json run/rewound/1/metrics.jsonl '[x["step"] for x in d]')" = "$(json run/rewound/1/metrics.jsonl "list(range($back + 1, $warned + 1))")" ]
    [ "$(json run/rewound/1/norms.jsonl 'max(x["step"] for x in d)')" = "$warned" ]
    [ "$(cd run/rewound/1 && ls step_*)" = "$(printf 'step_%08d.h5\n' 4 6)" ]
    [ "$(json run/metrics.jsonl 'round(d[2]["lr"] * 1e9)')" = "$(json run/rewound/1/metrics.jsonl 'round(d[0]["lr"] * 1e7)')" ]
    [ "$(attribute run/checkpoints/step_00000030.h5 lr_scale)" = 0.01 ]
    [ "$(attribute run/checkpoints/step_00000030.h5 rewinds)" = 1 ]
}

@test "rewind: scale and count survive --resume, right after the rewind and later" {
    ranks 2 quest-train "$config" "${rising[@]}" --set checkpoint.keep=100 --out run
    back=$(json run/events.jsonl '[x["step"] for x in d if x["kind"] == "rewind"][0]')
    cp -r run killed # as if it had been killed before its next checkpoint
    for checkpoint in killed/checkpoints/step_*.h5; do
        [ "$(basename "$checkpoint")" \< "$(printf step_%08d.h5 $((back + 1)))" ] || rm "$checkpoint"
    done
    ranks 2 quest-train "$config" "${rising[@]}" --set checkpoint.keep=100 --out killed --resume >log
    grep -q "the learning rate is 0.01 times the schedule's after 1 rewind" log
    same_state killed/checkpoints/step_00000030.h5 run/checkpoints/step_00000030.h5
    ranks 2 quest-train "$config" "${rising[@]}" --set checkpoint.keep=100 --out stopped --max-steps 21
    ranks 2 quest-train "$config" "${rising[@]}" --set checkpoint.keep=100 --out stopped --resume
    same_state stopped/checkpoints/step_00000030.h5 run/checkpoints/step_00000030.h5
}

@test "rewind: a NaN is an event and the run goes back, here to its beginning" {
    ranks 2 quest-train "$config" --set optim.lr=1e30 --set optim.clip_grad_norm=0 --set diagnosis.on_critical=rewind \
        --set diagnosis.rewind_lr_scale=1e-33 --out run
    [ "$(events run nonfinite)" = "[2]" ]
    [ "$(events run rewind)" = "[0]" ]
    [ "$(json run/metrics.jsonl '[x["step"] for x in d if "grad_norm" in x] == list(range(1, 31)) and d[-1]["loss"] < 10')" = True ]
    [ "$(json run/rewound/1/metrics.jsonl '[x["step"] for x in d]')" = "[1, 2]" ]
    ranks 2 quest-train "$config" --set optim.lr=1.0e-3 --set optim.clip_grad_norm=0 --out plain
    losses_agree run plain 1e-4 30
}

@test "rewind: at most rewind_max times, then the error of stop" {
    run faulty 2 --set diagnosis.on_critical=rewind --set diagnosis.rewind_max=2 --set checkpoint.every=1 --out run
    one_error 1 'step 3.*layer 1.*blocks\.1\.mlp\.fc1 output.*after 2 rewinds \(diagnosis\.rewind_max\)'
    [ "$(events run nonfinite)" = "[3, 3, 3]" ]
    [ "$(events run rewind)" = "[1, 1]" ]
    [ -e run/rewound/2/metrics.jsonl ]
    [ -e run/rewound/1/step_00000002.h5 ] # a checkpoint from which the next step was not finite
    # each halves the rate, and the checkpoint gone back to says so
    [ "$(json run/events.jsonl '[x["value"] for x in d if x["kind"] == "rewind"]')" = "[0.5, 0.25]" ]
    [ "$(attribute run/checkpoints/step_00000001.h5 lr_scale)" = 0.25 ]
    [ "$(attribute run/checkpoints/step_00000001.h5 rewinds)" = 2 ]
    [ "$(json run/metrics.jsonl 'd[1]["lr"] / d[0]["lr"]')" = 0.5 ]
    run quest-train "$config" "${rising[@]}" --set diagnosis.rewind_lr_scale=1 --set diagnosis.rewind_max=1 --out rules
    one_error 1 'stopped by the diagnosis of step [0-9]+: layer.*after 1 rewinds.*holds this state'
}

@test "rewind: nothing to go back to is one error" {
    run ranks 2 quest-train "$config" "${rising[@]}" --set diagnosis.logit_critical=0.01 --out run
    one_error 1 'the run was to go back, because step 1: .*no checkpoint from before step 0'
}

@test "rewind: the newest checkpoint is damaged, so the one before it is taken" {
    quest-train "$config" "${rising[@]}" --set diagnosis.on_critical=log --out run --max-steps 6
    /usr/bin/python3 -c 'open("run/checkpoints/step_00000004.h5", "r+b").truncate(5000)'
    quest-train "$config" "${rising[@]}" --set diagnosis.on_critical=rewind --set diagnosis.logit_critical=0.02 --set diagnosis.rewind_max=1 \
        --out run --resume 2>warnings || true
    cat warnings
    grep -q 'warning: .*step_00000004.h5.*trying the checkpoint before it' warnings
    [ "$(events run rewind)" = "[2]" ]
}

@test "rewind: the best checkpoint was of the steps that are given up: the link goes, the next evaluation is the best" {
    ranks 2 quest-train "$config" "${rising[@]}" --set train.eval_every=1 --set checkpoint.keep=100 --out run
    best=$(readlink run/checkpoints/best.h5)
    [ -e "run/checkpoints/$best" ]
    [ "$(json run/metrics.jsonl 'max(x["top1"] for x in d if "top5" in x)')" = "$(attribute run/checkpoints/step_00000030.h5 best_top1 | xargs printf '%.9g')" ]
}

@test "rewind: a best checkpoint of before the event stays the best" {
    ranks 2 quest-train "$config" "${rising[@]}" --set train.eval_every=2 --out run --max-steps 2
    ranks 2 quest-train "$config" "${rising[@]}" --set train.eval_every=1000 --set diagnosis.rewind_lr_scale=1e-9 --out run --resume
    [ "$(events run rewind)" = "[2]" ]
    # at that rate the end is no better than where it went back to
    [ "$(json run/metrics.jsonl '[x["step"] for x in d if "top5" in x]')" = "[2, 30]" ]
    [ "$(json run/metrics.jsonl 'len({x["top1"] for x in d if "top5" in x})')" = 1 ]
    [ "$(readlink run/checkpoints/best.h5)" = step_00000002.h5 ]
}

# ---- where a NaN came from ----

@test "NaN: the step is run again and searched: micro-steps and ranks name the same layer and tensor" {
    for split in "1 1 0" "1 2 0" "2 1 1" "2 2 0" "4 1 2"; do
        read -r count accumulate speaker <<<"$split"
        run faulty "$count" --set train.accumulate="$accumulate" --out "run$count$accumulate"
        one_error 1 "step 3 met a NaN or Inf: layer 1: the first tensor that holds it is blocks\.1\.mlp\.fc1 output \(rank $speaker\)"
    done
}

@test "NaN: a tensor that belongs to no layer is named without one" {
    /usr/bin/python3 - "$BATS_FILE_TMPDIR" <<'PYTHON'
import h5py, sys
with h5py.File(f"{sys.argv[1]}/faulty_run/checkpoints/step_00000001.h5") as f, h5py.File("head.h5", "w") as out:
    for name, tensor in f["params"].items():
        out[f"params/{name}"] = tensor[...]
    out["params/head.weight"][3] = 3e38
PYTHON
    run ranks 2 quest-train "$config" --set model.depth=3 --init head.h5 --out run
    one_error 1 "step 1 met a NaN or Inf: the first tensor that holds it is logits \(rank 0\); there is no checkpoint yet"
}

# ---- afterwards ----

@test "all five limits changed: quest-norms finds in the log what was found while training" {
    limits=(horizon_steps=40 logit_critical=1.5 entropy_critical=0.195 key_outlier=1.2 spike_z=1)
    quest-train "$config" --set attention.kind=standard --set optim.lr=3e-3 --set optim.clip_grad_norm=0 --set norms.every=1 \
        --set train.steps=60 "${limits[@]/#/--set=diagnosis.}" --out run
    quest-norms diagnose --json run >found.json || [ $? -eq 4 ]
    /usr/bin/python3 - <<'PYTHON'
import json
def same(event):
    return json.dumps({key: event.get(key) for key in ("step", "kind", "severity", "layer", "head", "since", "predicted_step", "advice")})
trained = [json.loads(line) for line in open("run/events.jsonl")]
found = json.load(open("found.json"))["events"]
print(*(f"{event['step']} {event['kind']} {event['severity']}" for event in found), sep="\n")
assert sorted(map(same, found)) == sorted(map(same, trained))
kinds = {event["kind"] for event in found}
assert {"logit_explosion", "key_norm_outlier", "gradient_spike"} <= kinds, kinds
PYTHON
    # by the default limits these numbers are healthy
    sed -i '/horizon_steps:\|logit_critical:\|entropy_critical:\|key_outlier:\|spike_z:/d' run/config.yaml
    run quest-norms diagnose run
    [ "$status" -eq 0 ]
}
