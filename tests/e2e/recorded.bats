# The diagnosis on real runs (recorded/record made them): silent about the one that learns, early about those that diverge.
load helpers
setup_file() {
    cd "$BATS_FILE_TMPDIR" || return 1
    for run in "$BATS_TEST_DIRNAME"/recorded/*.tar.gz; do tar -xzf "$run"; done
}

# The loss leaves its trend where the run has lost what it had learnt for good: the first step from which on the median of
# ten logged losses (100 steps) is never again under half of the first loss. Prints that step and the first critical one.
lost_and_critical() {
    quest-norms diagnose --json "$1" >"$BATS_TEST_TMPDIR/found.json" && status=0 || status=$?
    /usr/bin/python3 - "$1" "$BATS_TEST_TMPDIR/found.json" <<'PYTHON'
import json, statistics, sys
lines = [json.loads(line) for line in open(f"{sys.argv[1]}/metrics.jsonl")]
medians = [statistics.median_high([x["loss"] for x in lines[max(0, i - 9):i + 1]]) for i in range(len(lines))]
learnt = [i for i, median in enumerate(medians) if median < lines[0]["loss"] / 2]
lost = lines[learnt[-1] + 1]["step"] if learnt and learnt[-1] + 1 < len(lines) else None
critical = [event["step"] for event in json.load(open(sys.argv[2]))["events"] if event["severity"] == "critical"]
print(len(learnt) > 20, lost, critical[0] if critical else None)
PYTHON
}

@test "a run that diverges: the first critical event is at least 100 steps before the loss leaves its trend" {
    cd "$BATS_FILE_TMPDIR"
    for run in standard_1 standard_2; do
        read -r learnt lost critical <<<"$(lost_and_critical $run)"
        echo "$run: learnt $learnt, lost at $lost, critical at $critical"
        [ "$learnt" = True ]
        [ $((lost - critical)) -ge 100 ]
        run quest-norms diagnose $run
        [ "$status" -eq 4 ]
    done
}

@test "its twin with QUEST attention learns: no warning, exit status 0" {
    cd "$BATS_FILE_TMPDIR"
    read -r learnt lost critical <<<"$(lost_and_critical quest_1)"
    echo "learnt $learnt, lost at $lost, critical at $critical"
    [ "$learnt $lost $critical" = "True None None" ]
    run quest-norms diagnose quest_1
    [ "$status" -eq 0 ]
}
