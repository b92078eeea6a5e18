# Where people already look: TensorBoard's event files, Prometheus' text file, the dashboard and the alerts; and long logs.
load helpers

setup_file() {
    make_datasets
    cd "$BATS_FILE_TMPDIR" || return 1
    write_config config.yaml
    # Stopped at step 17 in the middle of lines, its checkpoint lost: goes on from an earlier one.
    board() { quest-train config.yaml --set log.tensorboard=true --set log.segment_mib=0.005 --set norms.every=1 --set train.eval_every=4 \
        --set checkpoint.every=10 --set log.prometheus="$PWD/run.prom" --out run "$@"; }
    board --max-steps 17
    cp run.prom stopped.prom
    rm run/checkpoints/step_00000017.h5 run/checkpoints/best.h5
    printf '{"step":18,"layer":0,"q_no' >>run/norms.jsonl
    printf '{"step":18,"lo' >>run/metrics.jsonl
    board --resume
    install_tensorboard
}
setup() { cd "$BATS_TEST_TMPDIR" && ln -s "$BATS_FILE_TMPDIR/run" run && mounted=; }
teardown() { [ -z "$mounted" ] || umount "$mounted"; }

# The real TensorBoard, from PyPI into build/tensorboard, kept between runs. What went wrong is left in `no-tensorboard`.
install_tensorboard() {
    local venv=$QUEST_ROOT/build/tensorboard
    "$venv/bin/python" -c 'import tensorboard' 2>/dev/null && return
    rm -rf "$venv"
    { /usr/bin/python3 -m venv "$venv" && timeout 240 "$venv/bin/pip" install -q --disable-pip-version-check --retries 1 tensorboard; } \
        >no-tensorboard 2>&1 && rm no-tensorboard || rm -rf "$venv"
}

# tensorboard_reads PYTHON: over `scalars` and `histograms`, {tag: [(step, value)]}, read as TensorBoard's pages read it
tensorboard_reads() { # DIRECTORY STATEMENTS
    [ ! -e "$BATS_FILE_TMPDIR/no-tensorboard" ] ||
        skip "TensorBoard cannot be installed: $(tail -n 1 "$BATS_FILE_TMPDIR/no-tensorboard")"
    "$QUEST_ROOT/build/tensorboard/bin/python" - "$@" <<'PYTHON'
import glob, json, math, os, sys
from tensorboard.backend.event_processing import event_accumulator, plugin_event_accumulator
from tensorboard.util import tensor_util
everything = {name: 0 for name in ("scalars", "histograms", "compressedHistograms", "tensors")}
old = event_accumulator.EventAccumulator(sys.argv[1], size_guidance=everything).Reload()
new = plugin_event_accumulator.EventAccumulator(sys.argv[1], tensor_size_guidance={"scalars": 0, "histograms": 0}).Reload()
scalars = {tag: [(event.step, event.value) for event in old.Scalars(tag)] for tag in old.Tags()["scalars"]}
histograms = {tag: [(event.step, event.histogram_value) for event in old.Histograms(tag)] for tag in old.Tags()["histograms"]}
# The pages read through the plugin's accumulator, which must agree.
assert set(new.Tags()["tensors"]) == set(scalars) | set(histograms)
for tag, events in scalars.items():
    assert [(e.step, tensor_util.make_ndarray(e.tensor_proto).item()) for e in new.Tensors(tag)] == events, tag
for tag, events in histograms.items():
    for event, (step, histogram) in zip(new.Tensors(tag), events, strict=True):
        assert event.step == step and tensor_util.make_ndarray(event.tensor_proto)[:, 2].sum() == histogram.num, tag
def log(path):
    return [json.loads(line) for line in os.popen(f"cd {path}; zcat -f norms-*.jsonl.gz norms.jsonl 2>/dev/null")]
def near(a, b):
    return abs(a - b) <= 2e-7 * max(abs(a), abs(b))
def check_log(run):
    """Every number of the log, once, and nothing else."""
    lines = [json.loads(line) for line in open(f"{run}/metrics.jsonl")]
    for prefix, names in (("train", "epoch loss top1 lr grad_norm"),
                          ("speed", "images_per_s step_time_s data_wait_s comm_wait_s skipped_images")):
        for name in names.split():
            logged = [(line["step"], line[name]) for line in lines if "grad_norm" in line]
            assert len(logged) == len(scalars[f"{prefix}/{name}"]) > 0
            assert all(a == c and near(b, d) for (a, b), (c, d) in zip(logged, scalars[f"{prefix}/{name}"])), name
    for name in ("top1", "top5", "loss"):
        logged = [(line["step"], line[name]) for line in lines if "split" in line]
        shown = scalars[f"evaluation/{name}"]
        assert all(a == c and near(b, d) for (a, b), (c, d) in zip(logged, shown, strict=True)), (name, logged, shown)
    assert "speed/mfu" not in scalars # unknown on this device
    records, tags = log(run), set()
    for name in [key for key, value in records[0].items() if isinstance(value, list)]:
        merge = max if name.endswith("_max") else min if name.endswith("_min") else lambda values: sum(values) / len(values)
        for layer in {record["layer"] for record in records}:
            logged = [(record["step"], record[name]) for record in records if record["layer"] == layer]
            shown, spread = scalars[f"{name}/layer_{layer:02}"], histograms[f"heads_{name}/layer_{layer:02}"]
            for (step, heads), (a, value), (b, histogram) in zip(logged, shown, spread, strict=True):
                assert step == a == b and near(merge(heads), value), (name, layer, step)
                assert histogram.num == sum(histogram.bucket) == len(heads) and histogram.bucket_limit[-1] == histogram.max
                assert near(histogram.min, min(heads)) and near(histogram.max, max(heads)) and near(histogram.sum, sum(heads))
                for low, high, count in zip([-math.inf] + histogram.bucket_limit, histogram.bucket_limit, histogram.bucket):
                    # the log has nine digits: the largest may be rounded up
                    inside = sum(low <= head and (head < high or high == histogram.max) for head in heads)
                    assert count == inside, (heads, histogram)
            tags |= {f"{name}/layer_{layer:02}", f"qkv_grad_norm/layer_{layer:02}"}
    assert {tag for tag in scalars if "layer_" in tag} == tags
exec(sys.argv[2])
PYTHON
}

@test "log.tensorboard: TensorBoard reads every number back, each step once although the run was resumed" {
    [ "$(ls run/tensorboard | wc -l)" = 2 ]
    tensorboard_reads run/tensorboard '
check_log("run")
assert [step for step, _ in scalars["train/loss"]] == list(range(1, 31))
first, second = sorted(glob.glob("run/tensorboard/*"))
assert list(event_accumulator._GeneratorFromPath(second).Load())[1].session_log.status == 1'
    # The program itself, which reads with a server of its own.
    "$QUEST_ROOT/build/tensorboard/bin/tensorboard" --logdir run/tensorboard --port 0 --load_fast=true >server 2>&1 3>&- &
    server=$!
    wait_for 60 grep -q 'http://localhost:[0-9]' server
    /usr/bin/python3 - "$(grep -o 'http://localhost:[0-9]*' server | head -n 1)" <<'PYTHON' || { kill $server && cat server && false; }
import json, sys, time, urllib.request
def get(path):
    return json.load(urllib.request.urlopen(sys.argv[1] + "/data/plugin/" + path, timeout=20))
end = time.monotonic() + 60
while not (tags := get("scalars/tags")) and time.monotonic() < end:
    time.sleep(0.5)
lines = [json.loads(line) for line in open("run/metrics.jsonl")]
logged = [(line["step"], line["loss"]) for line in lines if "grad_norm" in line]
shown = [(step, value) for _, step, value in get("scalars/scalars?run=.&tag=train%2Floss")]
assert [a for a, _ in logged] == [a for a, _ in shown] and all(abs(a - b) < 1e-6 for (_, a), (_, b) in zip(logged, shown)), shown
assert [step for _, step, _ in get("histograms/histograms?run=.&tag=heads_k_norm_max%2Flayer_01")] == list(range(1, 31))
PYTHON
    kill $server
}

@test "log.tensorboard: a TensorBoard that runs sees a step soon after it was logged" {
    tensorboard_reads run/tensorboard 'pass' # skips where there is none
    quest-train "$BATS_FILE_TMPDIR/config.yaml" --set log.tensorboard=true --set train.steps=100000 --out live >log 2>&1 3>&- &
    trainer=$!
    wait_for 30 logged live 5
    "$QUEST_ROOT/build/tensorboard/bin/python" - <<'PYTHON'
import time
from tensorboard.backend.event_processing import event_accumulator
board, seen = event_accumulator.EventAccumulator("live/tensorboard", size_guidance={"scalars": 0}), []
for _ in range(3):
    seen.append(board.Reload().Scalars("train/loss")[-1].step)
    time.sleep(0.5)
assert seen[0] < seen[1] < seen[2], seen
PYTHON
    kill $trainer && wait $trainer || true
}

@test "export --tensorboard: the same numbers from the log; a second export replaces the first; others' files are refused" {
    quest-norms export run --tensorboard exported
    quest-norms export run --tensorboard exported
    [ "$(ls -A exported | wc -l)" = 1 ]
    run ! quest-norms export run --tensorboard run/tensorboard
    one_error 2 'holds events.out.tfevents.*name another directory'
    tensorboard_reads exported 'check_log("run")'
}

@test "log.tensorboard: a full disk is said once, the training goes on, and the file ends in a whole event" {
    mkdir small
    mount -t tmpfs -o size=64k tmpfs small 2>/dev/null || skip "mounting a small file system is not allowed here"
    mounted=$PWD/small
    mkdir full
    ln -s "$PWD/small" full/tensorboard
    quest-train "$BATS_FILE_TMPDIR/config.yaml" --set log.tensorboard=true --set norms.every=1 --out full >output 2>&1
    cat output
    [ "$(grep -c 'tensorboard/events.*No space left.*the training goes on' output)" = 1 ]
    [ "$(json full/metrics.jsonl '[x["step"] for x in d if "grad_norm" in x] == list(range(1, 31))')" = True ]
    tensorboard_reads small 'steps = [step for step, _ in scalars["train/loss"]]; assert 3 < len(steps) < 30 and steps[-1] < 31, steps'
}

@test "log.prometheus: the newest numbers after every logged step, whole at any moment, as promtool wants them" {
    for file in "$BATS_FILE_TMPDIR/stopped.prom" "$BATS_FILE_TMPDIR/run.prom"; do promtool check metrics <"$file"; done
    grep -q '^quest_train_step{run="run"} 17$' "$BATS_FILE_TMPDIR/stopped.prom"
    grep -q '^quest_train_step{run="run"} 30$' "$BATS_FILE_TMPDIR/run.prom"
    quest-norms export run --prometheus exported.prom
    # Only how many events there were may differ: the trainer counts from its start on, the export over the whole log.
    /usr/bin/python3 - exported.prom "$BATS_FILE_TMPDIR/run.prom" <<'PYTHON'
import sys
def numbers(path):
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in open(path) if line[0] != "#") if "_events_" not in name}
a, b = map(numbers, sys.argv[1:])
a.pop('quest_train_time_seconds{run="run"}'), b.pop('quest_train_time_seconds{run="run"}') # milliseconds apart
assert a.keys() == b.keys() and len(a) > 40
for name in a:
    assert a[name] == b[name] or a[name] != a[name] and b[name] != b[name] or abs(a[name] - b[name]) <= 1e-6 * abs(b[name]), name
PYTHON
    # A reader in the middle of the training never sees half a file.
    quest-train "$BATS_FILE_TMPDIR/config.yaml" --set log.prometheus=live.prom --set train.steps=100000 --set norms.every=1 --out live >log 2>&1 3>&- &
    trainer=$!
    wait_for 30 logged live 3
    for _ in $(seq 200); do tail -n 1 live.prom; done | sort | uniq -c | tee ends
    kill $trainer && wait $trainer || true
    [ -s ends ]
    [ "$(grep -vc 'severity="critical"} [0-9]*$' ends)" = 0 ]
}

@test "log.prometheus: a directory that is not there ends the start with one line and status 2" {
    run quest-train "$BATS_FILE_TMPDIR/config.yaml" --set log.prometheus=nowhere/x.prom --out other
    one_error 2 'log.prometheus: nowhere/x.prom'
}

@test "docs/monitoring: the alert rules are valid and tested; rules and dashboard name only metrics that are exported" {
    cd "$QUEST_ROOT/docs/monitoring"
    promtool check rules alerts.yml
    promtool test rules alerts_test.yml
    /usr/bin/python3 - "$BATS_FILE_TMPDIR/run.prom" <<'PYTHON'
import json, re, sys, yaml
lines = [line for line in open(sys.argv[1]) if not line.startswith("#")]
labels = {}
for line in lines:
    name, rest = line.split("{", 1)
    labels.setdefault(name, set()).update(re.findall(r'(\w+)="', rest))
def check(expression):
    used = re.findall(r"quest_\w+", expression)
    assert used, expression
    for name in used:
        assert name in labels, (name, expression)
    for name, selected in re.findall(r"(quest_\w+)\{([^}]*)\}", expression):
        assert set(re.findall(r"(\w+)=", selected)) <= labels[name], expression
board = json.load(open("dashboard.json"))
expressions = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
expressions += [item["query"]["query"] for item in board["templating"]["list"] if item["type"] == "query"]
rules = yaml.safe_load(open("alerts.yml"))
expressions += [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
assert len(expressions) > 25
for expression in expressions:
    check(expression)
assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
# Prometheus' own parser: the dashboard's expressions as rules.
rules = [{"record": f"dashboard:{i}:x", "expr": re.sub(r"\$\w+", "x", e)} for i, e in enumerate(expressions) if "label_values" not in e]
json.dump({"groups": [{"name": "dashboard", "rules": rules}]}, open(sys.argv[1] + ".rules", "w"))
PYTHON
    promtool check rules "$BATS_FILE_TMPDIR/run.prom.rules"
}

@test "log.segment_mib: a resumed run's segments and norms.jsonl are one log without a gap, and every command reads it" {
    ls run
    [ "$(ls run | grep -c '^norms-0000[0-9]*.jsonl.gz$')" -ge 3 ]
    [ -z "$(ls run | grep -E '\.new$|norms-[0-9]+\.jsonl$')" ]
    zcat -f run/norms-*.jsonl.gz run/norms.jsonl >whole.jsonl
    [ "$(json whole.jsonl '[(x["step"], x["layer"]) for x in d] == [(s, l) for s in range(1, 31) for l in (0, 1)]')" = True ]
    [ "$(json run/metrics.jsonl '[x["step"] for x in d if "grad_norm" in x] == list(range(1, 31))')" = True ]
    mkdir one
    cp run/metrics.jsonl run/events.jsonl run/config.yaml one/
    cp whole.jsonl one/norms.jsonl
    for run in run one; do
        quest-norms diagnose $run --json | grep -v '"run"' >$run.diagnose
        quest-norms export $run --csv $run.csv --prometheus $run.prom
        quest-norms report $run --out $run.html
        quest-norms plot $run --out $run.svg
        launch="$QUEST_ROOT/launch/norms-table"
        "$launch" $run >$run.table
    done
    cmp run.csv one.csv
    [ "$(wc -l <run.csv)" = $((1 + 30 + 30 * 2 * 2)) ]
    cmp run.diagnose one.diagnose
    cmp run.table one.table
    for kind in prom html svg; do cmp <(sed 's/\brun\b/one/g' run.$kind) <(sed 's/\brun\b/one/g' one.$kind); done
}

@test "log.segment_mib: a damaged segment is named, the rest is shown by each command" {
    cp -rL run damaged
    truncate -s 900 damaged/norms-000002.jsonl.gz
    for command in "diagnose damaged" "report damaged --out x.html" "plot damaged --out x.svg" "export damaged --csv x.csv" \
        "export damaged --prometheus x.prom" "export damaged --tensorboard x"; do
        run quest-norms $command
        echo "$command: $status: $output"
        [ "$status" = 0 ] || [[ $command == diagnose* ]]
        grep -q 'warning: damaged/norms-000002.jsonl.gz: is cut off' <<<"$output"
    done
    grep -q '^30,1,1,' x.csv
    grep -q '^1,0,0,' x.csv
    quest-train "$BATS_FILE_TMPDIR/config.yaml" --set train.steps=31 --set log.segment_mib=0.005 --resume --out damaged
}
