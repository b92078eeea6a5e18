# Training with the CUDA backend through the programs, on a GPU or in the simulator (GPUSIM names its launcher).
load ../e2e/helpers
setup_file() {
    make_datasets
    write_config config.yaml
    sed -i 's/^train: {/&products: first, /' config.yaml # tuned, two runs may choose differently: products.bats
    make_faulty config.yaml
    on cpu 1 quest-train config.yaml --out cpu
    on cuda 1 quest-train config.yaml --out cuda
}
setup() {
    cd "$BATS_TEST_TMPDIR" || return 1
    config=$BATS_FILE_TMPDIR/config.yaml
    cpu=$BATS_FILE_TMPDIR/cpu
    cuda=$BATS_FILE_TMPDIR/cuda
}

# on DEVICE RANKS PROGRAM ARGUMENT...
on() {
    local device=$1 count=$2
    shift 2
    # shellcheck disable=SC2086 # the launcher is words
    ranks "$count" ${GPUSIM:+$GPUSIM --devices ${gpus:-2} --threads 1 --} "$@" --device "$device"
}

two_gpus() { [ -n "${GPUSIM:-}" ] || [ "$(nvidia-smi -L | grep -c '^GPU')" -ge 2 ] || skip "one GPU only"; }

@test "the loss curve on a GPU is the CPU's" {
    losses_agree "$cuda" "$cpu" 1e-4 30
}

@test "a step that is read early, for its checkpoint, has a rate as the others do" {
    run python3 -c '
import json, math, sys
steps = [line for line in map(json.loads, open(sys.argv[1] + "/metrics.jsonl")) if "split" not in line]
assert len(steps) == 30
for line in steps:
    assert line["step_time_s"] is not None and line["step_time_s"] > 0, line
    assert math.isclose(line["images_per_s"] * line["step_time_s"], 24, rel_tol=1e-6), line
    assert line["data_wait_s"] is not None and line["comm_wait_s"] is not None, line
' "$cuda"
    [ "$status" = 0 ]
}

@test "the same seed gives the same bits again on a GPU" {
    on cuda 1 quest-train "$config" --out again
    same_state again/checkpoints/step_00000030.h5 "$cuda/checkpoints/step_00000030.h5"
}

@test "how often norms are logged does not change a bit on a GPU" {
    on cuda 1 quest-train "$config" --set norms.every=0 --out run
    same_state run/checkpoints/step_00000030.h5 "$cuda/checkpoints/step_00000030.h5"
}

@test "BCE of mixed images and the average of the weights on GPUs are the CPU's; weights come back from its evaluation" {
    recipe=(--set train.loss=bce --set mix.mixup=0.8 --set mix.group=4 --set train.steps=12 --set train.eval_every=6)
    on cpu 1 quest-train "$config" "${recipe[@]}" --set ema.decay=0.9 --out host
    on cuda 1 quest-train "$config" "${recipe[@]}" --set ema.decay=0.9 --out one
    on cuda 1 quest-train "$config" "${recipe[@]}" --out plain
    losses_agree one host 1e-4 12
    losses_agree one plain 0 12
    run /usr/bin/python3 -c '
import h5py, json, numpy, sys
plain, one, host = (h5py.File(f"{run}/checkpoints/step_00000012.h5") for run in ("plain", "one", "host"))
assert all(plain["params"][n][...].tobytes() == one["params"][n][...].tobytes() for n in plain["params"])
norm = lambda a: sum((numpy.float64(x) ** 2).sum() for x in a) ** 0.5
difference = norm([one["ema"][n][...] - host["ema"][n][...] for n in host["ema"]])
assert difference < 1e-3 * norm([host["ema"][n][...] - host["params"][n][...] for n in host["ema"]])
losses = lambda run: [x["loss"] for x in map(json.loads, open(f"{run}/metrics.jsonl")) if x.get("split") == "val_ema"]
assert len(losses("one")) == 2 and numpy.allclose(losses("one"), losses("host"), rtol=1e-4)'
    echo "$output"
    [ "$status" = 0 ]
}

@test "two GPUs with NCCL follow one with the whole batch, and resume to the same bits" {
    two_gpus
    on cuda 2 quest-train "$config" --set comm.bucket_mib=0.01 --out run
    losses_agree run "$cuda" 1e-4 30
    on cuda 2 quest-train "$config" --set comm.bucket_mib=0.01 --out resumed --max-steps 13
    on cuda 2 quest-train "$config" --set comm.bucket_mib=0.01 --out resumed --resume
    same_state resumed/checkpoints/step_00000030.h5 run/checkpoints/step_00000030.h5
}

@test "gradients in bf16 on the wire stay close" {
    two_gpus
    on cuda 2 quest-train "$config" --set comm.dtype=bf16 --out run
    losses_agree run "$cuda" 2e-2 30
}

@test "a GPU's checkpoint goes on on the CPU, and the CPU's on the GPU" {
    on cuda 1 quest-train "$config" --out run --max-steps 10
    on cpu 2 quest-train "$config" --out run --resume --max-steps 20
    on cuda 1 quest-train "$config" --out run --resume
    losses_agree run "$cpu" 1e-4 30
}

@test "bf16 training follows the fp32 loss curve" {
    on cuda 1 quest-train "$config" --set train.precision=bf16 --out run
    losses_agree run "$cpu" 3e-2 30
}

faulty() { # DEVICE RANKS ARGUMENT...: the run in which step 3 overflows in layer 1 (helpers.bash)
    on "$1" "$2" quest-train "$config" --init "$BATS_FILE_TMPDIR/faulty_start.h5" \
        --set data.train="$BATS_FILE_TMPDIR/faulty.h5" --set data.shuffle=false --set data.augment.flip=false \
        --set data.augment.crop_padding=0 --set model.depth=3 --set optim.lr=1e-36 "${@:3}"
}

@test "NaN: a GPU, which is read a step late, names the step, layer and tensor that the CPU names" {
    two_gpus
    for split in "1 1 0" "1 2 0" "2 1 1"; do
        read -r count accumulate speaker <<<"$split"
        for device in cpu cuda; do
            run faulty $device "$count" --set train.accumulate="$accumulate" --out "$device$count$accumulate"
            one_error 1 "step 3 met a NaN or Inf: layer 1: the first tensor that holds it is blocks\.1\.mlp\.fc1 output \(rank $speaker\)"
        done
    done
}

@test "skipped updates: the same steps as on the CPU, and stopping in between leaves the bits alone" {
    two_gpus
    skipping=(--set diagnosis.skip_z=1.5 --set train.steps=60)
    on cpu 1 quest-train "$config" "${skipping[@]}" --out cpu
    on cuda 2 quest-train "$config" "${skipping[@]}" --out cuda
    on cuda 2 quest-train "$config" "${skipping[@]}" --out stopped --max-steps 37
    on cuda 2 quest-train "$config" "${skipping[@]}" --out stopped --resume
    skipped() { json "$1/events.jsonl" "[x['step'] for x in d if x['kind'] == 'update_skipped']"; }
    echo "cpu $(skipped cpu), cuda $(skipped cuda), stopped $(skipped stopped)"
    [ "$(skipped cpu)" != "[]" ]
    [ "$(skipped cuda)" = "$(skipped cpu)" ]
    [ "$(skipped stopped)" = "$(skipped cpu)" ]
    [ "$(json cuda/metrics.jsonl "[x['step'] for x in d if x.get('skipped_updates')]")" = "$(skipped cpu)" ]
    same_state stopped/checkpoints/step_00000060.h5 cuda/checkpoints/step_00000060.h5
    losses_agree cuda cpu 1e-3 60
}

@test "rewind: two GPUs go back from a NaN, and give up after rewind_max times" {
    two_gpus
    on cuda 2 quest-train "$config" --set optim.lr=1e30 --set optim.clip_grad_norm=0 --set diagnosis.on_critical=rewind \
        --set diagnosis.rewind_lr_scale=1e-33 --out run
    on cuda 2 quest-train "$config" --set optim.clip_grad_norm=0 --out plain
    [ "$(json run/events.jsonl '[(x["step"], x["kind"]) for x in d if x["kind"] in ("nonfinite", "rewind")]')" = "[(2, 'nonfinite'), (0, 'rewind')]" ]
    losses_agree run plain 1e-4 30
    run faulty cuda 2 --set diagnosis.on_critical=rewind --set diagnosis.rewind_max=2 --set checkpoint.every=1 --out limit
    one_error 1 'step 3.*layer 1.*after 2 rewinds'
    [ "$(json limit/events.jsonl '[x["step"] for x in d if x["kind"] == "rewind"]')" = "[1, 1]" ]
}

@test "more ranks than GPUs on a host: an error that says what to change, before training" {
    [ -n "${GPUSIM:-}" ] || skip "needs the simulator's --devices"
    gpus=1
    run on cuda 2 quest-train "$config" --out run
    one_error 2 '1 GPU for 2 ranks.*at most 1 rank'
    CUDA_VISIBLE_DEVICES=0 run on cuda 2 quest-train "$config" --out run
    one_error 2 "1 GPU \(CUDA_VISIBLE_DEVICES='0'\) for 2 ranks"
}

# pretend WHAT COMMAND...: tests/cuda/pretend.c stands before CUDA's libraries, in every rank
pretend() {
    local what=$1
    shift
    LD_PRELOAD=$(readlink -f "$BATS_TEST_DIRNAME/../../build/tests/cuda/pretend.so") PRETEND=$what "$@"
}

@test "products that cuBLASLt has nothing for go through cublasGemmEx, with the same results" {
    # shellcheck disable=SC2086 # the launcher is words
    pretend no_lt ${GPUSIM:+$GPUSIM --} "$BATS_TEST_DIRNAME/../../build/tests/cuda/test_linear" 2>log || { cat log && false; }
    grep -q '^pretend: cuBLASLt offers nothing' log
}

@test "without NCCL one rank trains, and more say what is missing, where it was looked for and what to do" {
    for program in "$QUEST_BIN"/quest-*; do
        run -0 readelf -d "$program"
        [[ $output != *nccl* ]]
    done
    pretend no_nccl on cuda 1 quest-train "$config" --out alone --max-steps 3
    two_gpus
    run pretend no_nccl on cuda 2 quest-train "$config" --out run
    one_error 1 'several ranks on GPUs need NCCL: libnccl.so.2 .*No such file.*looked for in .*/cuda.*libnccl2.*LD_LIBRARY_PATH'
}

@test "no GPU that can be used: one line that says why and what to do; auto says it too and takes the CPU" {
    unset CUDA_VISIBLE_DEVICES
    while IFS='|' read -r what visible reason; do
        [ "$visible" = unset ] && unset CUDA_VISIBLE_DEVICES || export CUDA_VISIBLE_DEVICES=$visible
        run pretend "$what" on cuda 1 quest-train "$config" --out run
        one_error 2 "--device cuda: host .* shows no usable GPU: $reason.*; or take --device cpu"
        run pretend "$what" on auto 1 quest-bench attention --kind quest --batch 1 --heads 1 --tokens 4 --head-dim 16
        [ "$status" = 0 ]
        grep -qE "^note: host .* shows no usable GPU: $reason.*; computing on the CPU" <<<"$output"
    done <<'END'
no_driver|unset|it has no NVIDIA driver
old_driver|unset|its driver is for CUDA 12\.4 and this program was built with CUDA 13\.[0-9]+; update the driver
no_gpu|unset|CUDA finds none
no_gpu|-1|CUDA_VISIBLE_DEVICES='-1' leaves none to see; unset it
no_gpu||CUDA_VISIBLE_DEVICES='' leaves none to see
no_gpu|GPU-8932f937|CUDA_VISIBLE_DEVICES='GPU-8932f937' leaves none to see
broken|unset|CUDA says: .*cudaErrorSystemDriverMismatch
END
}

@test "a GPU older than 8.0, and no cuBLAS: one line that names it" {
    run pretend old_gpu on cuda 1 quest-train "$config" --out run
    one_error 2 'GPU 0 \(Tesla V100-SXM2-16GB\) has compute capability 7\.0; 8\.0 \(Ampere\) or newer is needed'
    run pretend no_cublas on cuda 1 quest-train "$config" --out run
    one_error 1 'a GPU needs cuBLAS: libcublasLt.so .*No such file.*looked for in .*/cuda.*install cuBLAS.*LD_LIBRARY_PATH'
}

@test "two NCCL versions in one run: an error that names both ranks, before training" {
    two_gpus
    run pretend mixed_nccl on cuda 2 quest-train "$config" --out run
    one_error 2 'rank 0 .* has NCCL [0-9]+ and rank 1 .* has NCCL [0-9]+; install the same version'
}

@test "two ranks on one GPU: an error that says what to change, before training" {
    two_gpus
    run pretend one_gpu on cuda 2 quest-train "$config" --out run
    one_error 2 'ranks 0 and 1 share GPU .*each rank needs its own'
}

@test "a rank that hangs ends the job within comm.timeout_s, with a message that names it" {
    two_gpus
    on cuda 2 quest-train "$config" --set train.steps=100000 --set comm.timeout_s=5 --out run >log 2>&1 3>&- &
    launcher=$!
    wait_for 120 logged run 3
    victim=$(pgrep -P "$(pgrep -P $launcher -x mpirun || echo $launcher)" -x quest-train | tail -n 1)
    kill -STOP "$victim"
    begin=$SECONDS
    wait $launcher && status=0 || status=$?
    kill -CONT "$victim" 2>/dev/null || true
    cat log
    echo "status $status after $((SECONDS - begin)) s"
    [ "$status" != 0 ]
    [ $((SECONDS - begin)) -le 60 ]
    grep -q '^error: .*rank 1 .*stopped answering' log
}

@test "allreduce benchmark: NCCL sums right in fp32 and bf16" {
    two_gpus
    for dtype in fp32 bf16; do
        on cuda 2 quest-bench allreduce --mib 3 --bucket-mib 1 --iterations 2 --warmup 1 --dtype "$dtype" --json >result.json
        [ "$(json result.json 'd["library"], d["ranks"]')" = "('NCCL', 2)" ]
    done
}

@test "NCCL with one rank: every call of a good end and of a bad one, each with its result" {
    pretend nothing on cuda 1 quest-bench allreduce --nccl-alone --mib 1 --iterations 2 --json >result.jsonl
    cat result.jsonl
    [ "$(json result.jsonl "[(x['nccl'], x['result']) for x in d if 'nccl' in x]")" = "[('initialisation', 'ok'), \
('all-reduce', 'ok'), ('finalise', 'ok'), ('time-out', 'ok'), ('abort', 'ok')]" ]
    [ "$(json result.jsonl "[(x['library'], x['ranks']) for x in d if 'library' in x]")" = "[('NCCL', 1)]" ]
    run -0 quest-bench allreduce --help
    [[ $output != *nccl-alone* ]]
    run pretend no_nccl on cuda 1 quest-bench allreduce --nccl-alone --mib 1
    one_error 1 'NCCL with one rank: initialisation: several ranks on GPUs need NCCL'
}

@test "quest-bench step counts its launches as the device and cuBLASLt see them, and none on the CPU" {
    [ -n "${GPUSIM:-}" ] || skip "needs the simulator's counts"
    step=(quest-bench step --batch 1 --precision bf16 --warmup 0 --json)
    for iterations in 1 3; do
        GPUSIM_STATS=$PWD/$iterations.stats.json pretend count on cuda 1 "${step[@]}" --iterations $iterations \
            >$iterations.json 2>$iterations.log
        json $iterations.stats.json 'sum(kernel["launches"] for kernel in d["kernels"])' >$iterations.kernels
        sed -n 's/^pretend: \([0-9]*\) products.*/\1/p' $iterations.log >$iterations.products
    done
    for what in kernels products; do # what two steps more add
        counted=$((($(cat 3.$what) - $(cat 1.$what)) / 2))
        echo "$what: $counted counted, $(json 3.json "d['$what']") said"
        [ "$counted" -gt 100 ]
        [ "$(json 3.json "d['$what']")" = $counted ]
        [ "$(json 1.json "d['$what']")" = $counted ]
    done
    [ "$(json 3.json "d['launches'] - d['kernels'] - d['products']")" = 0 ]
    [ "$(json 3.json "d['copies'] > 0")" = True ]
    on cpu 1 "${step[@]}" --iterations 1 >cpu.json
    [ "$(json cpu.json "d['launches']")" = None ]
}

@test "no GPU: auto trains on the CPU and says so" {
    [ -n "${GPUSIM:-}" ] || skip "this host has a GPU"
    # without the simulator's libraries first, the real ones find no driver here
    run env LD_LIBRARY_PATH= quest-train "$config" --out run --max-steps 1 --device auto
    echo "$output"
    [ "$status" = 0 ]
    [[ $output == *"no usable GPU: it has no NVIDIA driver"*"; computing on the CPU"* ]]
}
