# Training: the same run on any number of ranks, the same bits again, and what a run directory holds.
load helpers
setup_file() { make_datasets; }
setup() { cd "$BATS_TEST_TMPDIR" || return 1; }

@test "1, 2 and 4 ranks agree over 50 steps" {
    write_config config.yaml
    for n in 1 2 4; do
        ranks $n quest-train config.yaml --set train.steps=50 --out run$n
    done
    losses_agree run2 run1 1e-4 50
    losses_agree run4 run1 1e-4 50
}

@test "two ranks with two micro-steps do what one rank does" {
    write_config config.yaml
    ranks 1 quest-train config.yaml --out run1
    ranks 2 quest-train config.yaml --set train.accumulate=2 --out run2
    losses_agree run2 run1 1e-4 30
}

@test "the same seed gives the same bits, another seed does not" {
    write_config config.yaml
    ranks 2 quest-train config.yaml --set model.drop_path=0.2 --out first
    ranks 2 quest-train config.yaml --set model.drop_path=0.2 --out second
    same_state first/checkpoints/step_00000030.h5 second/checkpoints/step_00000030.h5
    ranks 2 quest-train config.yaml --set model.drop_path=0.2 --set train.seed=8 --out third
    run same_state first/checkpoints/step_00000030.h5 third/checkpoints/step_00000030.h5
    [ "$status" != 0 ]
    [[ $output == *"bits differ"* ]]
}

@test "the number of loader threads does not change a bit" {
    write_config config.yaml
    quest-train config.yaml --set data.workers=1 --out one
    quest-train config.yaml --set data.workers=5 --set data.prefetch=7 --out five
    same_state one/checkpoints/step_00000030.h5 five/checkpoints/step_00000030.h5
}

@test "how often norms and metrics are logged does not change a bit" {
    write_config config.yaml
    quest-train config.yaml --set train.accumulate=2 --set norms.every=3 --out often
    quest-train config.yaml --set train.accumulate=2 --set norms.every=0 --set log.every=10 --out rarely
    same_state often/checkpoints/step_00000030.h5 rarely/checkpoints/step_00000030.h5
}

@test "inputs that are kept and inputs that are made again give the same bits" {
    write_config config.yaml
    for options in "" "--set train.precision=bf16 --set attention.kind=qknorm" \
        "--set model.layer_scale=0.1 --set model.drop_path=0.2 --set train.accumulate=2"; do
        # shellcheck disable=SC2086 # several words
        for keep in on off; do
            quest-train config.yaml $options --set train.steps=6 --set train.keep_inputs=$keep --out "$keep" >"$keep.log"
        done
        same_state on/checkpoints/step_00000006.h5 off/checkpoints/step_00000006.h5
        planned() { sed -n 's/^memory:.* activations \([0-9.]*\) MiB.*/\1/p' "$1"; }
        echo "$(planned on.log) MiB kept, $(planned off.log) made again"
        /usr/bin/python3 -c "assert $(planned on.log) > 1.2 * $(planned off.log)"
        rm -r on off
    done
}

@test "a run directory holds what the design says" {
    write_config config.yaml
    run -0 ranks 2 quest-train config.yaml --set train.eval_every=15 --out run
    [ -s run/config.yaml ]
    quest-train run/config.yaml --max-steps 1 --out again # the resolved configuration is one
    [ "$(json run/metrics.jsonl 'sum("grad_norm" in x for x in d)')" = 30 ]
    [ "$(json run/metrics.jsonl 'all(set("step epoch loss lr grad_norm images_per_s step_time_s data_wait_s comm_wait_s time".split()) <= set(x) for x in d if "grad_norm" in x)')" = True ]
    [ "$(json run/metrics.jsonl '[x["step"] for x in d if "top5" in x and x["split"] == "val"]')" = "[15, 30]" ]
    [ "$(json run/norms.jsonl 'sorted({(x["step"], x["layer"]) for x in d})[:3]')" = "[(1, 0), (1, 1), (5, 0)]" ]
    [ "$(json run/norms.jsonl 'all(len(x[k]) == 2 for x in d for k in x if k not in ("step", "layer", "qkv_grad_norm"))')" = True ]
    # the newest three; the first evaluation is the best so far, so it made one at step 15
    [ "$(ls run/checkpoints)" = "$(printf '%s\n' best.h5 step_00000015.h5 step_00000020.h5 step_00000030.h5)" ]
}

@test "a run says what it runs on, what it trains, each step and evaluation, and how it ended" {
    write_config config.yaml
    # line NUMBER PATTERN: the whole line
    line() { sed -n "$1p" log | grep -qxE "$2" || { echo "not '$2':" && sed -n "$1p" log && return 1; }; }
    ranks 2 quest-train config.yaml --device cpu --set optim.warmup_steps=2 --set train.steps=3 --set train.accumulate=2 --set train.eval_every=2 --out run >log
    cat log
    line 1 'memory: parameters [0-9.]+ MiB, .*, together [0-9.]+ MiB'
    line 2 'device: 2 ranks, each on .*1 thread, oneDNN .*'
    line 3 'model: 0\.03 M parameters, dim 32, depth 2, 2 heads, 17 tokens, attention quest, fp32; 0\.00 GFLOP an image forward'
    line 4 'run: 3 steps of 24 images \(6 a rank and micro-step, 2 micro-steps\), 240 training images; logs in run'
    line 5 'epoch 0\.10/0\.3  step 1/3  loss [0-9.]+  top-1 [0-9.]+ %  lr 5\.00e-04  [0-9]+ images/s  wait data [0-9]+ % comm [0-9]+ %  0m0[0-9]s left'
    line 7 'evaluation at step 2 \(epoch 0\.20\): top-1 [0-9.]+ %, top-5 [0-9.]+ %, loss [0-9.]+'
    line 10 'done: 3 steps; logs and checkpoints in run'
    [ "$(wc -l <log)" = 10 ]
    quest-train config.yaml --device cpu --set optim.warmup_steps=0 --set train.steps=1 --out one >log
    cat log
    line 2 'device: 1 rank, each on .*'
    line 4 'run: 1 steps of 24 images \(24 a rank and micro-step, 1 micro-step\), 240 training images; logs in one'
}

@test "it learns: the loss falls by a fifth in 250 steps" {
    write_config config.yaml
    ranks 2 quest-train config.yaml --set train.steps=250 --set optim.lr=5.0e-3 --set data.augment.flip=false \
        --set data.augment.crop_padding=0 --out run
    mean_loss() { json run/metrics.jsonl "sum(x['loss'] for x in d if 'grad_norm' in x and $1 < x['step'] <= $1 + 10) / 10"; }
    before=$(mean_loss 0)
    after=$(mean_loss 240)
    echo "loss $before -> $after"
    awk "BEGIN { exit !($after < 0.8 * $before) }"
}

@test "every attention kind trains" {
    write_config config.yaml
    for kind in standard quest qnorm qknorm qknorm_hs qknorm_ds; do
        quest-train config.yaml --set attention.kind=$kind --set train.steps=12 --out $kind
        [ "$(json $kind/metrics.jsonl '[x["loss"] < 3 for x in d if x["step"] == 12 and "grad_norm" in x]')" = "[True]" ]
    done
}

@test "bf16 follows fp32, where the CPU has it" {
    write_config config.yaml
    quest-train config.yaml --out fp32
    if grep -qE 'avx512_bf16|amx_bf16' /proc/cpuinfo && [ -z "${ONEDNN_MAX_CPU_ISA:-}" ]; then
        quest-train config.yaml --set train.precision=bf16 --out bf16
        losses_agree bf16 fp32 2e-2 30
    fi
    # a CPU without it, on every machine
    export ONEDNN_MAX_CPU_ISA=AVX2
    run quest-train config.yaml --set train.precision=bf16 --out refused
    one_error 2 'bfloat16.*fp32'
    quest-train config.yaml --out avx2
    losses_agree avx2 fp32 1e-3 30
}

@test "a run takes the memory that it foretold, within 5 %" {
    quest-data synth shapes --out large.h5 --images 16 --size 224
    # steps, evaluations and checkpoints of a model that is large beside the program
    printf '%s\n' 'model: {preset: vit_tiny}' 'data: {train: large.h5, val: large.h5}' 'optim: {warmup_steps: 1}' \
        'train: {steps: 3, batch_size: 8, eval_every: 1}' 'checkpoint: {every: 1}' >vit_tiny.yaml
    /usr/bin/python3 - quest-train vit_tiny.yaml --device cpu --out run <<'PYTHON'
import resource, subprocess, re, sys
output = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, check=True, text=True).stdout
foretold = float(re.search(r"^memory: .* together ([0-9.]+) MiB$", output, re.M)[1])
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
print(f"foretold {foretold} MiB, at the highest {peak:.1f} MiB")
sys.exit(not 0.95 <= peak / foretold <= 1.05)
PYTHON
}
