# The experiment on images with a shortcut: the launcher on a few steps, its table, going on, mistakes.
load helpers

setup() {
    cd "$BATS_TEST_TMPDIR" || return 1
    launcher="$QUEST_ROOT/launch/experiments/spurious"
    small=(--data shapes --set train.steps=12 --set train.eval_every=12 --set optim.warmup_steps=2 --set train.precision=fp32)
    mkdir data
    quest-data synth spurious --images 200 --seed 1 --out data/spurious_shapes_train.h5
    quest-data synth spurious --images 40 --seed 2 --split test --out data/spurious_shapes_test.h5
}

@test "launcher: trains each kind and rate, evaluates clean and marked images, and repeats nothing" {
    run -0 "$launcher" "${small[@]}" --kinds quest,standard --rates 1e-3 --out runs
    echo "$output"
    [ "$(grep -c ', top-1 0.* on clean test images' <<<"$output")" = 2 ]
    grep -qE '^shapes +quest +1e-3 +[0-9.]+ +[0-9.]+ +[01] of 1 ' runs/table.txt
    grep -qE '^shapes +standard +1e-3 ' runs/table.txt
    [ "$(quest-data info data/spurious_shapes_marked.h5 --json | json /dev/stdin 'd["images"]')" = 40 ]
    for file in shapes_report.html shapes_logit_max.png; do [ -s runs/$file ]; done
    run -0 "$launcher" "${small[@]}" --kinds quest,standard --rates 1e-3 --seeds 2 --out runs
    [ "$(grep -c ', top-1 0.* on clean test images' <<<"$output")" = 2 ] # the second seed alone
    grep -qE '^shapes +quest +1e-3 .* of 2 ' runs/table.txt
}

@test "launcher: a run that dies in NaN is a result, one that cannot start is an error" {
    run -0 "$launcher" "${small[@]}" --kinds standard --rates 1e30 --out runs
    echo "$output"
    grep -qE '^shapes +standard +1e30 +- +- +1 of 1 ' runs/table.txt
    run -1 "$launcher" "${small[@]}" --kinds quest --rates fast --out other
    [[ $output == *"a run could not be finished"* ]]
}

@test "launcher: bad usage" {
    run -2 "$launcher" --data circles
    [[ $output == *"'circles' is neither shapes nor cifar10"* ]]
    run -2 "$launcher" --data cifar10
    [[ $output == *"data/cifar10_train.h5"* ]]
    run -2 "$launcher" --seeds 0
    run -2 "$launcher" --kinds
}
