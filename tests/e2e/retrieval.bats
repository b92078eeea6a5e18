# The retrieval experiment: the program and its launcher on small grids, what they log, stopping and going on.
load helpers

setup() {
    cd "$BATS_TEST_TMPDIR" || return 1
    launcher="$QUEST_ROOT/launch/experiments/retrieval"
    a="$QUEST_ROOT/configs/experiments/retrieval/a.yaml"
    b="$QUEST_ROOT/configs/experiments/retrieval/b.yaml"
}

# cell RUN-OPTION...: one learning rate and decay, one seed
cell() { quest-retrieval run "$@" --seeds 1 --set grid.lr=1e-2 --set grid.weight_decay=0.01; }

@test "launcher: trains a grid, prints the table, draws figures, and repeats nothing" {
    small=(--kinds quest,standard --set train.steps=150 --set "grid.lr=1e-2, 3e-2" --set grid.weight_decay=0.01 --out runs)
    run -0 "$launcher" "${small[@]}" --seeds 1
    echo "$output"
    [[ $output == *"8 runs in $PWD/runs, 0 of them finished before"* && $output == *"[8/8] "* ]]
    for line in 'A, > 90 % .* of 2: .* of 2: ' '  seed by seed ' '  PyTorch  *33 of 72: 46 %' 'the paper  *58 %' 'B, > 95 %'; do
        grep -qE "$line" <<<"$output"
    done
    [ "$(ls runs/figures/*.png | wc -l)" = 20 ]
    for page in A_report B_report; do [ -s runs/figures/$page.html ]; done
    run -0 "$launcher" "${small[@]}" --seeds 2 --spec B
    [[ $output == *"8 runs in $PWD/runs, 4 of them finished before"* ]]
}

@test "specification A: QUEST finds the token; with queries and keys both of length one it stays at chance" {
    cell "$a" --out runs --kinds quest,qknorm_unit
    json runs/A_quest_lr0.01_wd0.01_seed0/result.json 'd["accuracy_unbiased"], d["accuracy_biased"]'
    [ "$(json runs/A_quest_lr0.01_wd0.01_seed0/result.json 'd["accuracy_unbiased"] > 0.9 and d["accuracy_biased"] > 0.9')" = True ]
    # 64 of 1024 expected, standard deviation 7.7
    [ "$(json runs/A_qknorm_unit_lr0.01_wd0.01_seed0/result.json '0.03 < d["accuracy_unbiased"] < 0.1 and d["accuracy_biased"] > 0.5')" = True ]
}

@test "logs hold quest-train's fields and the experiment's own, consistent with each other; quest-norms reads them" {
    cell "$b" --out runs --kinds quest --set train.steps=200 --set log.every=20
    run=runs/B_quest_lr0.01_wd0.01_seed0
    /usr/bin/python3 - $run <<'PYTHON'
import json, math, sys
metrics, norms = ([json.loads(line) for line in open(f"{sys.argv[1]}/{name}.jsonl")] for name in ("metrics", "norms"))
assert [line["step"] for line in metrics] == [line["step"] for line in norms] == [1] + list(range(20, 201, 20))
for line in metrics[1:]:
    assert 0 <= line["top1_unbiased"] <= 1 and 0 <= line["top1_biased"] <= 1 and line["loss"] > 0 and line["grad_norm"] > 0
for line in norms:
    part = lambda name: line[name][0]
    tokens = 32 * 16
    for side, answer in (("k", "k_norm_biased_answer"), ("q", "q_norm_unbiased_answer")):
        mean, other, own = part(f"{side}_norm_mean"), part(f"{side}_norm_other"), part(answer)
        count = (mean - other) / (own - other) * tokens  # answer tokens of that sort in the batch
        assert abs(count - round(count)) < 1e-2 and 1 <= round(count) <= 31, (line["step"], side, count)
        assert part(f"{side}_norm_min") <= min(own, other) and max(own, other) <= part(f"{side}_norm_max")
    assert 0 <= part("entropy_min") <= part("entropy_mean") <= math.log(16) + 1e-6 and line["qkv_grad_norm"] > 0
PYTHON
    run -0 quest-norms plot $run --stat k_norm_biased_answer --out keys.svg
    grep -q 'B_quest_lr0.01_wd0.01_seed0<' keys.svg
    run -0 quest-norms plot $run --stat top1_biased --out top1.svg
    run quest-norms plot $run --stat no_such_number --out x.svg
    one_error 2 'no_such_number'
    run -0 quest-norms export $run --csv run.csv
}

@test "the same seed gives the same bits, another seed others; nothing depends on how many run at once" {
    short=("$a" "$b" --kinds qnorm,standard --set train.steps=100)
    cell "${short[@]}" --out one --jobs 1
    cell "${short[@]}" --out four --jobs 4
    cell "${short[@]}" --out other --set train.seed=1
    without_time() { sed -E 's/"(time|seconds|cpu_s|images_per_s|step_time_s)":[^,}]*//g' "$@"; }
    for run in A_qnorm A_standard B_qnorm B_standard; do
        run+=_lr0.01_wd0.01_seed
        for file in metrics.jsonl norms.jsonl result.json; do
            cmp <(without_time "one/${run}0/$file") <(without_time "four/${run}0/$file")
        done
        [ "$(json "one/${run}0/result.json" 'd["weights_crc32"]')" != "$(json "other/${run}1/result.json" 'd["weights_crc32"]')" ]
    done
}

@test "ctrl-C ends all runs with one line; the same command goes on, to the bits of runs never stopped" {
    few=("$b" --kinds quest,standard,qnorm --set train.steps=3000)
    cell "${few[@]}" --out whole >/dev/null
    set -m # a process group of its own, as a terminal's foreground job
    cell "${few[@]}" --out stopped --jobs 2 >log 2>&1 &
    wait_for 10 grep -qs '"step":100,' stopped/B_standard_lr0.01_wd0.01_seed0/metrics.jsonl
    kill -INT -$!
    status=0 && wait $! || status=$?
    output=$(cat log)
    one_error 1 'stopped after . of 3 runs; the same command goes on'
    [ -z "$(jobs -r)" ]
    cell "${few[@]}" --out stopped --jobs 2
    for kind in quest standard qnorm; do
        run=B_${kind}_lr0.01_wd0.01_seed0
        [ "$(json "whole/$run/result.json" 'd["weights_crc32"]')" = "$(json "stopped/$run/result.json" 'd["weights_crc32"]')" ]
        [ "$(json "stopped/$run/norms.jsonl" '[l["step"] for l in d] == [1] + list(range(50, 3001, 50))')" = True ]
    done
}

@test "mistakes are one line that names file, line and key; a directory with another run is left alone" {
    sed 's/biased_share: 0.5 /biased_shares: 0.5 /' "$a" >wrong.yaml
    run quest-retrieval run wrong.yaml --out runs
    one_error 2 'wrong.yaml:10: data.biased_shares: is not a known key .did you mean data.biased_share'
    run quest-retrieval run "$a" "$a" --out runs --kinds quest
    one_error 2 'given twice'
    cell "$a" --kinds quest --set train.steps=10 --out runs
    run cell "$a" --kinds quest --set train.steps=20 --out runs
    one_error 2 'runs/A_quest_lr0.01_wd0.01_seed0: holds a run of another configuration'
    for arguments in "" "walk" "run" "run $a" "run nowhere.yaml --out x" "run $a --out x --jobs none" "run $a --out x --spec Z" \
        "run $a --out x --kinds wide" "table" "table nowhere" "table ." "run $a --out $a"; do
        run quest-retrieval $arguments
        one_error 2 .
    done
    echo '{"kind": 3' >runs/A_quest_lr0.01_wd0.01_seed0/result.json
    run quest-retrieval table runs
    one_error 2 'result.json: is not the result of a run'
}

@test "a full disk ends the grid with one line, and no result is left of that run" {
    (trap '' XFSZ && ulimit -f 8 && cell "$a" --out runs --kinds quest --set train.steps=2000 --set log.every=1) >log 2>&1 || code=$?
    output=$(cat log) status=$code
    one_error 1 'jsonl: cannot be written'
    [ ! -e runs/A_quest_lr0.01_wd0.01_seed0/result.json ]
}
