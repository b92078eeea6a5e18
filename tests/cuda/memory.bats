# Whether a run fits into a GPU: the plan with its reserve, the warm-up step, who else is there. In the simulator, which can make
# a GPU of any size, with pretend_memory.c before CUDA's libraries.
load ../e2e/helpers
setup_file() {
    make_datasets
    write_config config.yaml
}
setup() {
    [ -n "${GPUSIM:-}" ] || skip "needs the simulator's --mem"
    cd "$BATS_TEST_TMPDIR" || return 1
    config=$BATS_FILE_TMPDIR/config.yaml
}

# gpu MIB RANKS PROGRAM ARGUMENT...
gpu() {
    local size=$1 count=$2
    shift 2
    ranks "$count" "$GPUSIM" --devices 2 --threads 1 --mem "${size}M" -- "$@" --device cuda
}

# pretend WHAT MIB COMMAND...
pretend() {
    local what=$1 size=$2
    shift 2
    LD_PRELOAD=$(readlink -f "$BATS_TEST_DIRNAME/../../build/tests/cuda/pretend_memory.so") PRETEND=$what PRETEND_MIB=$size \
        PRETEND_PID=$$ "$@"
}

# figure PATTERN: the number that stands in `output` for the one group of the pattern
figure() { sed -nE "s/.*$1.*/\1/p" <<<"$output" | head -n 1; }

@test "the plan has a reserve, of 512 MiB alone and 2 GiB with NCCL" {
    run -0 gpu 8000 1 quest-train "$config" --out one --max-steps 1
    [[ $output =~ memory:.*", reserve 512.0 MiB, together " ]]
    run -0 gpu 8000 2 quest-train "$config" --set comm.dtype=bf16 --out two --max-steps 1
    [[ $output =~ memory:.*", reserve 2048.0 MiB, gradients on the wire 0.1 MiB, together " ]]
    run quest-train "$config" --out cpu --max-steps 1 --device cpu
    [[ $output != *reserve* && $output != *warm-up* ]]
}

@test "a batch that does not fit is refused with the largest that does; that one runs, the next larger does not" {
    for split in "1 1" "2 3"; do
        read -r count accumulate <<<"$split"
        set -- --set model.image_size=16 --set train.accumulate="$accumulate" --max-steps 2
        run gpu $((512 + 33 + (count - 1) * 1536)) "$count" quest-train "$config" "$@" --set train.batch_size=192 --out large
        one_error 2 '[0-9]+ images a rank and micro-step fit, [0-9]+ a step, not [0-9]+ and 192;'
        fits=$(figure ': ([0-9]+) images a rank and micro-step')
        [ "$(figure ' fit, ([0-9]+) a step')" = $((fits * count * accumulate)) ]
        run -0 gpu $((512 + 33 + (count - 1) * 1536)) "$count" quest-train "$config" "$@" \
            --set train.batch_size=$((fits * count * accumulate)) --out "fits$count"
        [[ $output == *"stopped at step 2"* && $output != *"keep the inputs"* ]]
        run gpu $((512 + 33 + (count - 1) * 1536)) "$count" quest-train "$config" "$@" \
            --set train.batch_size=$(((fits + 1) * count * accumulate)) --out "larger$count"
        one_error 2 "$fits images a rank and micro-step fit"
    done
}

@test "inputs of products are kept where they fit, with the bits of those that are made again" {
    run -0 gpu 8000 1 quest-train "$config" --set train.precision=bf16 --set model.drop_path=0.2 --out kept
    [ "$(figure 'memory: ([0-9]+)[.][0-9] MiB more keep the inputs of products')" -ge 0 ]
    run -0 gpu 8000 1 quest-train "$config" --set train.precision=bf16 --set model.drop_path=0.2 --set train.keep_inputs=off --out again
    [[ $output != *"keep the inputs"* ]]
    same_state kept/checkpoints/step_00000030.h5 again/checkpoints/step_00000030.h5
}

@test "the warm-up step says what the device has in use, within 3 % of the plan without its reserve" {
    run -0 gpu 8000 1 quest-train "$config" --out run --max-steps 1
    taken=$(figure 'the run has taken ([0-9.]+) MiB')
    planned=$(figure 'MiB of the ([0-9.]+) planned')
    python3 -c "import sys; taken, planned = $taken, $planned - 512; sys.exit(abs(taken - planned) > 0.03 * planned)"
    [ "$(figure '([0-9]+) of the GPU.s 8000 MiB are free')" -lt $((8000 - ${taken%.*})) ]
}

@test "what a library takes late is met by the reserve; more of it ends the run before its first step" {
    run -0 pretend late 400 gpu 547 1 quest-train "$config" --out small --max-steps 1
    [ "$(figure 'the run has taken ([0-9]+)[.]')" -gt 400 ]
    run pretend late 600 gpu 547 1 quest-train "$config" --out large
    one_error 1 'the warm-up step before the first: .*cublasLtMatmul.*; [0-9]+ of the GPU.s 547 MiB are left: lower train.batch_size'
    [ ! -s large/metrics.jsonl ]
}

@test "the warm-up step changes no bit: going on from a checkpoint, which warms up again, is going on without a stop" {
    for count in 1 2; do
        gpu 8000 "$count" quest-train "$config" --set model.drop_path=0.2 --set diagnosis.skip_z=6 --out "whole$count" --max-steps 12
        for steps in 5 9 12; do
            gpu 8000 "$count" quest-train "$config" --set model.drop_path=0.2 --set diagnosis.skip_z=6 --out "cut$count" --max-steps $steps \
                "${resume[@]}"
            resume=(--resume)
        done
        resume=()
        same_state "whole$count/checkpoints/step_00000012.h5" "cut$count/checkpoints/step_00000012.h5"
    done
}

@test "a full GPU: who holds it, by process where NVML tells, else how much; also where no context can be had" {
    name=$(cat /proc/$$/comm)
    run pretend held 70000 gpu 70500 1 quest-train "$config" --out run
    one_error 2 "the GPU has 500 MiB free, but this run needs .*; process $$ \($name\) holds 70000 MiB of it \(CUDA_VISIBLE_DEVICES"
    run pretend held_by_whom 70000 gpu 70500 1 quest-train "$config" --out run
    one_error 2 'the GPU has 500 MiB free, .*; other processes held 70000 of its 70500 MiB when this run began'
    run pretend full 70000 gpu 70500 1 quest-train "$config" --out run
    one_error 1 "cudaErrorMemoryAllocation\); process $$ \($name\) holds 70000 MiB of it"
    run pretend none 0 gpu 500 1 quest-train "$config" --out run
    one_error 2 'take a smaller model$'
}

@test "what an evaluation downloads lands in pinned memory" {
    gpu 8000 1 quest-train "$config" --out run --max-steps 1
    run -0 pretend pageable 0 gpu 8000 1 quest-eval --checkpoint run/checkpoints/step_00000001.h5 --data "$BATS_FILE_TMPDIR/val.h5" \
        --logits logits.h5
    [[ $output == *"a download into pinned memory"* && $output != *pageable* ]]
}

@test "kernels are loaded at once, unless CUDA_MODULE_LOADING says otherwise" {
    run -0 pretend module_loading 0 gpu 8000 1 quest-train "$config" --out run --max-steps 1
    [[ $output == *"pretend: CUDA_MODULE_LOADING is EAGER"* ]]
    CUDA_MODULE_LOADING=LAZY run -0 pretend module_loading 0 gpu 8000 1 quest-train "$config" --out again --max-steps 1
    [[ $output == *"pretend: CUDA_MODULE_LOADING is LAZY"* ]]
}

@test "quest-bench step: the device's memory beside its plan" {
    gpu 8000 1 quest-bench step --preset vit_tiny --batch 1 --iterations 1 --warmup 0 --precision bf16 --json >result.json
    [ "$(json result.json 'abs(d["peak_device_mib"] - d["planned_device_mib"]) < 0.03 * d["planned_device_mib"]')" = True ]
}
