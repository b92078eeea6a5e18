# quest-norms on made-up runs: what it says, its exit statuses, and logs that are damaged.

setup_file() {
    export RUNS="$BATS_FILE_TMPDIR"
    here="$BATS_TEST_DIRNAME"
    /usr/bin/python3 "$here/norms_synthetic.py" "$RUNS/healthy"
    /usr/bin/python3 "$here/norms_synthetic.py" "$RUNS/quest" --kind quest --seed 2
    /usr/bin/python3 "$here/norms_synthetic.py" "$RUNS/diverging" --diverge
}

bats_require_minimum_version 1.5.0

setup() {
    BUILD="${BUILD:-$BATS_TEST_DIRNAME/../../build}"
    PATH="$BUILD/bin:$PATH"
}

on_screen() { tmux -S "$BATS_TEST_TMPDIR/tmux" "$@"; }
teardown() { on_screen kill-server 2>/dev/null || true; }

@test "diagnose: a healthy run has exit status 0" {
    run quest-norms diagnose "$RUNS/healthy"
    [ "$status" -eq 0 ]
    [[ "$output" == *"healthy: no warning in 400 logged steps"* ]]
}

@test "diagnose: a diverging run has exit status 4, and layer, head, cause and advice are named" {
    run quest-norms diagnose "$RUNS/diverging"
    [ "$status" -eq 4 ]
    [[ "$output" == *"it began in layer 2, head 1"* ]]
    [[ "$output" == *"query and key norms have grown together"* ]]
    [[ "$output" == *"The loss left its trend at step 34"* ]]
    [[ "$output" == *"What to change: Train with attention.kind: quest"* ]]
}

@test "diagnose: the first critical finding comes at least 100 steps before the loss breaks (step 3410)" {
    quest-norms diagnose --json "$RUNS/diverging" >"$BATS_TEST_TMPDIR/out.json" || [ $? -eq 4 ]
    /usr/bin/python3 - "$BATS_TEST_TMPDIR/out.json" <<'PYTHON'
import json, sys
found = json.load(open(sys.argv[1]))
assert found["result"] == "critical" and found["logged_steps"] == 400
critical = [event for event in found["events"] if event["severity"] == "critical"]
assert critical[0]["step"] <= 3310 and (critical[0]["layer"], critical[0]["head"]) == (2, 1), critical[0]
assert [event["step"] for event in found["events"]] == sorted(event["step"] for event in found["events"])
PYTHON
}

@test "diagnose: cut lines, rubbish, nulls and missing fields cost a warning, not the diagnosis" {
    cp -r "$RUNS/diverging" "$BATS_TEST_TMPDIR/damaged"
    cd "$BATS_TEST_TMPDIR/damaged"
    rm config.yaml
    sed -i '30s/.*/rubbish/; 50s/"loss": [^,]*, //; 60s/.\{40\}$//' metrics.jsonl
    sed -i '100s/$/ trailing/; 120s/"q_norm_std": \[[^]]*\], //' norms.jsonl
    printf '{"step": 9999, "la' >>norms.jsonl
    run quest-norms diagnose .
    [ "$status" -eq 4 ]
    [[ "$output" == *"metrics.jsonl: 2 of 400 lines are damaged"* ]]
    [[ "$output" == *"norms.jsonl: 1 of 1600 lines are damaged"* ]]
    [[ "$output" == *"config.yaml is missing"* ]]
    [[ "$output" == *"layer 2, head 1"* ]]
    [[ "$output" != *nonfinite* ]]
}

# What goes wrong with logs, one kind a directory: metrics.jsonl and norms.jsonl of $RUNS/diverging, 400 and 1600 lines.
damage() { # KIND
    cp -r "$RUNS/diverging" "$1"
    case $1 in
    cut) # by a crash, in the middle and at the end
        sed -i '60s/.\{40\}$//' "$1/metrics.jsonl"
        sed -i '240s/.\{40\}$//' "$1/norms.jsonl"
        printf '{"step": 9999, "la' >>"$1/norms.jsonl"
        ;;
    nan) # in JSON's way and in Python's
        sed -i '50s/"loss": [^,]*,/"loss": NaN,/; 51s/"loss": [^,]*,/"loss": null,/' "$1/metrics.jsonl"
        sed -i '200s/"logit_max": \[[^]]*\]/"logit_max": [NaN, -Infinity, null]/' "$1/norms.jsonl"
        ;;
    missing)
        sed -i '50s/"loss": [^,]*, //; 51s/"step": [^,]*, //' "$1/metrics.jsonl"
        sed -i '200s/"k_norm_max": \[[^]]*\], //; 201s/"layer": [^,]*, //' "$1/norms.jsonl"
        ;;
    version) # fields and values that we do not know, another number of heads
        sed -i 's/^{/{"version": 9, "ranks": [{"x": [1, "a"]}], "note": "a \\"b\\"", /' "$1/metrics.jsonl"
        sed -i '200s/\(logit_max": \[\)/\11, 2, 3, /; 201s/"step": [0-9]*/"step": "many"/; s/}$/, "new_mean": [1, 2]}/' "$1/norms.jsonl"
        ;;
    esac
}

wait_until() { # COMMAND...: within ten seconds
    for _ in $(seq 100); do
        ! "$@" || return 0
        sleep 0.1
    done
    return 1
}

@test "malformed logs: each command says what is wrong in one line and shows the rest" {
    cd "$BATS_TEST_TMPDIR"
    declare -A said=([cut]=$'cut/metrics.jsonl: 1 of 400 lines\ncut/norms.jsonl: 1 of 1600 lines\n' [nan]=""
        [missing]=$'missing/metrics.jsonl: 1 of 400 lines\nmissing/norms.jsonl: 1 of 1600 lines\n'
        [version]=$'version/norms.jsonl: 1 of 1600 lines\n')
    for kind in cut nan missing version; do
        damage $kind
        for command in "diagnose $kind" "report $kind --out $kind.html" "plot $kind --layer 2 --out $kind.svg" \
            "export $kind --csv $kind.csv" "export $kind --prometheus $kind.prom" "export $kind --tensorboard $kind.board" \
            "watch $kind --plain --interval 0.1"; do
            if [[ $command == watch* ]]; then
                quest-norms $command >out 2>err 3>&- &
                watcher=$!
                wait_until grep -q 'step 4000' out
                kill $watcher && wait $watcher
            else
                status=0 && quest-norms $command >out 2>err || status=$?
                [ $status = 0 ] || [[ $status = 4 && $command == diagnose* ]]
            fi
            echo "$command:" && cat err
            diff <(echo -n "${said[$kind]}" | sed 's/$/ are damaged and left out/; s/^/warning: /') err
            [[ $command != diagnose* ]] || grep -q 'it began in layer 2, head 1' out
            [[ $command != watch* ]] || grep -q 'critical  logit_explosion: layer 2, head 1' out
        done
        /usr/bin/python3 - "$kind" <<'PYTHON'
import csv, json, sys
kind = sys.argv[1]
rows = list(csv.DictReader(open(f"{kind}.csv")))
steps, heads = [row for row in rows if not row["layer"]], [row for row in rows if row["layer"]]
lost = {"cut": (1, 3), "nan": (0, 0), "missing": (1, 3), "version": (0, 3)}[kind]
assert (len(steps), len(heads)) == (400 - lost[0], 4800 - lost[1] + (3 if kind == "version" else 0)), (len(steps), len(heads))
assert f'quest_train_step{{run="{kind}"}} 4000\n' in open(f"{kind}.prom").read()
assert f"{kind}, layer 2, head 1" in open(f"{kind}.svg").read()
page = open(f"{kind}.html").read()
assert "logit_explosion" in page and "it began in layer 2, head 1" in page
PYTHON
        promtool check metrics <$kind.prom
        [ "$(stat -c %s $kind.board/*)" -gt 1000000 ]
    done
}

@test "bad usage is one line and exit status 2" {
    for arguments in "" "unknown" "diagnose" "diagnose $RUNS/nowhere" "diagnose $RUNS" "diagnose --bad $RUNS/healthy"; do
        run quest-norms $arguments
        [ "$status" -eq 2 ]
        [[ "${lines[0]}" == "error: "* ]]
        [ "${#lines[@]}" -eq 1 ]
    done
}

# A trainer on two ranks, in a model so small that it takes seconds.
train() {
    quest-data synth shapes --out "$BATS_TEST_TMPDIR/shapes.h5" --images 64 --size 32 >/dev/null 2>&1
    cat >"$BATS_TEST_TMPDIR/tiny.yaml" <<YAML
model: {image_size: 32, patch_size: 8, dim: 32, depth: 2, heads: 2}
attention: {kind: standard}
data: {train: $BATS_TEST_TMPDIR/shapes.h5}
train: {steps: 6, batch_size: 16}
log: {every: 1}
norms: {every: 1}
YAML
    OMP_NUM_THREADS=1 run timeout 120 mpirun --allow-run-as-root --oversubscribe -np 2 quest-train \
        "$BATS_TEST_TMPDIR/tiny.yaml" --out "$BATS_TEST_TMPDIR/run" "$@"
}

@test "quest-train: diagnosis.on_critical: stop ends a run on two ranks with a checkpoint and exit status 1" {
    train --set diagnosis.on_critical=stop --set diagnosis.logit_critical=0.02
    [ "$status" -eq 1 ]
    [[ "$output" == *"stopped by the diagnosis of step 1: layer"* ]]
    [ -f "$BATS_TEST_TMPDIR/run/checkpoints/step_00000001.h5" ]
    grep -q '"kind":"logit_explosion","severity":"critical"' "$BATS_TEST_TMPDIR/run/events.jsonl"
}

@test "quest-train: diagnosis.on_critical: checkpoint goes on; the log raises the same events" {
    train --set diagnosis.on_critical=checkpoint --set diagnosis.logit_critical=0.02
    [ "$status" -eq 0 ]
    [ -f "$BATS_TEST_TMPDIR/run/checkpoints/step_00000001.h5" ]
    [ -f "$BATS_TEST_TMPDIR/run/checkpoints/step_00000006.h5" ]
    run quest-norms diagnose "$BATS_TEST_TMPDIR/run"
    [ "$status" -eq 4 ]
    [[ "$output" == *"step 1 "*"critical logit_explosion   layer 0"*"step 1 "*"critical logit_explosion   layer 1"* ]]
}

@test "report: one offline page that draws, follows clicks, and is silent on console and network" {
    quest-norms report "$RUNS/diverging" "$RUNS/quest" --out "$BATS_TEST_TMPDIR/report.html"
    run grep -cE '<(script|link|img)[^>]*(src|href)=' "$BATS_TEST_TMPDIR/report.html"
    [ "$output" = 0 ]
    grep -q '"attention.kind":"quest"' "$BATS_TEST_TMPDIR/report.html"
    /usr/bin/python3 "$BATS_TEST_DIRNAME/norms_browser.py" "$BATS_TEST_TMPDIR/report.html" 10
}

@test "report: texts of the run cannot leave the data, and a failed report leaves no file" {
    cp -r "$RUNS/healthy" "$BATS_TEST_TMPDIR/odd <b> name"
    echo 'data: {train: "</script><script>alert(1)"}' >>"$BATS_TEST_TMPDIR/odd <b> name/config.yaml"
    quest-norms report "$BATS_TEST_TMPDIR/odd <b> name" --out "$BATS_TEST_TMPDIR/odd.html"
    run grep -c '</script>' "$BATS_TEST_TMPDIR/odd.html"
    [ "$output" = 3 ]
    run quest-norms report "$RUNS/healthy" --out "$BATS_TEST_TMPDIR/nowhere/report.html"
    [ "$status" -eq 2 ]
    run quest-norms report "$RUNS/healthy"
    [ "$status" -eq 2 ]
    [[ "$output" == *"--out"* ]]
}

@test "plot: PNG, SVG and PDF by the name's ending; one curve a head and run" {
    for kind in png svg pdf; do
        quest-norms plot "$RUNS/diverging" "$RUNS/healthy" --stat k_norm_max --layer 2 --log --out "$BATS_TEST_TMPDIR/x.$kind"
    done
    [ "$(head -c 8 "$BATS_TEST_TMPDIR/x.png" | tail -c 7)" = "$(printf 'PNG\r\n\032\n')" ]
    [ "$(head -c 5 "$BATS_TEST_TMPDIR/x.pdf")" = "%PDF-" ]
    [ "$(grep -c '<title>gnuplot_plot_' "$BATS_TEST_TMPDIR/x.svg")" -eq 6 ]
    grep -q 'diverging, layer 2, head 1' "$BATS_TEST_TMPDIR/x.svg"
    for wrong in "--stat none --out x.png" "--out x.gif" "--layer x --out x.png" "--layer 99 --out x.png"; do
        run quest-norms plot "$RUNS/healthy" $wrong
        [ "$status" -eq 2 ]
    done
    [ ! -e x.png ]
}

@test "export: CSV holds every number of the log, Prometheus' file passes promtool" {
    quest-norms export "$RUNS/diverging" --csv "$BATS_TEST_TMPDIR/x.csv" --prometheus "$BATS_TEST_TMPDIR/x.prom"
    /usr/bin/python3 - "$RUNS/diverging" "$BATS_TEST_TMPDIR/x.csv" "$BATS_TEST_TMPDIR/x.prom" <<'PYTHON'
import csv, json, re, sys
rows = list(csv.DictReader(open(sys.argv[2])))
heads = {(int(row["step"]), int(row["layer"]), int(row["head"])): row for row in rows if row["layer"]}
records = [json.loads(line) for line in open(sys.argv[1] + "/norms.jsonl")]
metrics = [json.loads(line) for line in open(sys.argv[1] + "/metrics.jsonl")]
assert len(heads) == 3 * len(records) and len(rows) == len(heads) + len(metrics)
for record in records:
    for name, values in record.items():
        if isinstance(values, list):
            for head, value in enumerate(values):
                assert abs(float(heads[record["step"], record["layer"], head][name]) - value) <= 1e-8 * abs(value)
newest = float(re.search(r'^quest_attention_logit_max\{run="diverging",layer="2",head="1"\} (\S+)', open(sys.argv[3]).read(), re.M)[1])
assert abs(newest - records[-2]["logit_max"][1]) <= 1e-5 * newest
PYTHON
    promtool check metrics <"$BATS_TEST_TMPDIR/x.prom"
}

@test "watch: a screen that grows with the log, shows a layer's heads, and ends on q; --plain prints lines" {
    cp -r "$RUNS/diverging" "$BATS_TEST_TMPDIR/growing"
    /usr/bin/python3 "$BATS_TEST_DIRNAME/norms_watch.py" "$BATS_TEST_TMPDIR/growing"
    quest-norms watch --plain --interval 0.1 "$BATS_TEST_TMPDIR/growing" >"$BATS_TEST_TMPDIR/plain" &
    sleep 1
    cp "$RUNS/healthy"/*.jsonl "$BATS_TEST_TMPDIR/growing/" # shorter: read anew
    head -n 300 "$RUNS/healthy/metrics.jsonl" >"$BATS_TEST_TMPDIR/growing/metrics.jsonl"
    sleep 1
    kill $!
    wait $!
    grep -q 'step 4010  loss 1.5000' "$BATS_TEST_TMPDIR/plain"
    grep -q 'critical  logit_explosion: layer 2, head 1' "$BATS_TEST_TMPDIR/plain"
    [[ "$(tail -n 1 "$BATS_TEST_TMPDIR/plain")" == "step 3000 "* ]]
}


shows() { # PATTERN
    wait_until on_screen_is "$1" || { echo "not on the screen: $1" && cat screen && return 1; }
}
on_screen_is() { on_screen capture-pane -p >screen && grep -q -- "$1" screen; }

@test "watch: keys choose a layer, a head and a statistic, whose history is drawn" {
    cd "$BATS_TEST_TMPDIR"
    on_screen new-session -d -x 130 -y 50 "env TERM=screen LC_ALL=C.UTF-8 PATH=$PATH quest-norms watch --interval 0.2 $RUNS/diverging; echo ended: \$?; sleep 60" 3>&-
    shows '^largest logit of all layers, the largest of its heads: 3'
    on_screen send-keys Down Down Down
    shows '^>layer 2 '
    shows '^largest logit of layer 2, the largest of its heads'
    on_screen send-keys Right Right
    shows '^   >head 1 '
    shows '^largest logit of layer 2, head 1: 3'
    on_screen send-keys s s
    shows '^least entropy of layer 2, head 1: '
    grep -q ' least entropy ' screen
    on_screen send-keys S S S
    shows '^largest key of layer 2, head 1: 13'
    shows 'step [0-9]* to 4000$'
    grep -q '^ *1[0-9]* .*█$' screen
    on_screen send-keys Left Left
    shows '^largest key of layer 2, the largest of its heads: 13'
    on_screen send-keys Up
    shows '^largest key of layer 1, the largest of its heads: [0-9]'
    on_screen send-keys Right Right Right Right Right # there are three heads
    shows '^largest key of layer 1, head 2: '
    on_screen send-keys S S S S
    shows '^gradient of layer 1: 0\.'
    on_screen resize-window -x 100 -y 18 # too low for the chart: the table stays
    shows '^   >head 2 '
    on_screen send-keys q
    shows 'ended: 0'
}
