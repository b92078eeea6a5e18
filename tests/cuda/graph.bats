# A step's passes as CUDA graphs (train.graph), on a GPU or in the simulator: the same bits as launch by launch.
load ../e2e/helpers
setup_file() {
    make_datasets
    write_config config.yaml
    sed -i 's/steps: 30/steps: 16/' config.yaml
}
setup() {
    cd "$BATS_TEST_TMPDIR" || return 1
    config=$BATS_FILE_TMPDIR/config.yaml
}

# on RANKS PROGRAM ARGUMENT...: counted (tests/cuda/pretend.c), in log
on() {
    local count=$1
    shift
    # shellcheck disable=SC2086 # the launcher is words
    LD_PRELOAD=$(readlink -f "$BATS_TEST_DIRNAME/../../build/tests/cuda/pretend.so") PRETEND=${pretended:-count} \
        ranks "$count" ${GPUSIM:+$GPUSIM --devices 2 --threads 1 --} "$@" --device cuda 2>log
}

graphs() { sed -n 's/^pretend: .* \([0-9]*\) graphs/\1/p' log | head -n 1; }

# same_bits RANKS GRAPHS ARGUMENT...: so many graphs are launched in 16 steps (any number but 0 where it is "some")
same_bits() {
    local count=$1 expected=$2
    shift 2
    rm -rf off on
    on "$count" quest-train "$config" --set train.graph=off "$@" --out off
    [ "$(graphs)" = 0 ]
    on "$count" quest-train "$config" --set train.graph=on "$@" --out on
    echo "$* on $count: $(graphs) graphs"
    [ "$(graphs)" = "$expected" ]
    same_state on/checkpoints/step_00000016.h5 off/checkpoints/step_00000016.h5
    for run in on off; do
        json $run/metrics.jsonl '[(x["step"], x["loss"], x.get("grad_norm"), x.get("top1")) for x in d]' >$run.metrics
        json $run/norms.jsonl '[{**x, "time": 0} for x in d]' >$run.norms
    done
    cmp on.metrics off.metrics
    cmp on.norms off.norms
}

@test "graphs give the bits, losses and norms that launches give, in both precisions" {
    # in two input slots, with statistics (steps 1, 5, 10, 15, 16) and without: the first of each is launched
    same_bits 1 12
    same_bits 1 12 --set train.precision=bf16 --set model.drop_path=0.3 --set train.label_smoothing=0.1 \
        --set model.layer_scale=0.1 --set train.recompute=true
    same_bits 1 44 --set train.accumulate=3 --set norms.every=0 --set attention.kind=qknorm
}

@test "on several GPUs what is not reduced behind is replayed, with the same bits" {
    [ -n "${GPUSIM:-}" ] || [ "$(nvidia-smi -L | grep -c '^GPU')" -ge 2 ] || skip "one GPU only"
    same_bits 2 0
    same_bits 2 15 --set train.accumulate=2 --set norms.every=0 --set comm.bucket_mib=0.01
}

@test "auto takes graphs where the GPU is faster than the host, whatever that changes of the bits: nothing" {
    pretended=fast_gpu on 1 quest-train "$config" --set norms.every=0 --out fast
    [ "$(graphs)" = 9 ] # five launched to measure, two to warm up
    on 1 quest-train "$config" --set norms.every=0 --set train.graph=off --out off
    same_state fast/checkpoints/step_00000016.h5 off/checkpoints/step_00000016.h5
    [ -n "${GPUSIM:-}" ] || return 0 # a GPU may be either
    on 1 quest-train "$config" --set norms.every=0 --out auto
    [ "$(graphs)" = 0 ]
}

@test "a run that goes back and one that is resumed take new input buffers: graphs of the old ones are not used" {
    rewinding=(--set optim.lr=1e30 --set optim.clip_grad_norm=0 --set diagnosis.on_critical=rewind
        --set diagnosis.rewind_lr_scale=1e-33)
    for graph in off on; do
        on 1 quest-train "$config" --set train.graph=$graph "${rewinding[@]}" --out rewound_$graph
        on 1 quest-train "$config" --set train.graph=$graph --out resumed_$graph --max-steps 7
        on 1 quest-train "$config" --set train.graph=$graph --out resumed_$graph --resume
    done
    same_state rewound_on/checkpoints/step_00000016.h5 rewound_off/checkpoints/step_00000016.h5
    same_state resumed_on/checkpoints/step_00000016.h5 resumed_off/checkpoints/step_00000016.h5
}

@test "quest-bench step: 342 launches become 4" {
    step=(quest-bench step --batch 1 --precision bf16 --warmup 2 --iterations 1 --json)
    for graph in on off; do on 1 "${step[@]}" --graph $graph >$graph.json; done
    cat on.json off.json
    [ "$(json off.json "d['graphs'], d['launches'] > 300")" = "(0, True)" ]
    [ "$(json on.json "d['graphs'], d['launches'] < 10")" = "(1, True)" ]
    run on 1 "${step[@]}" --graph maybe
    [ "$status" = 2 ]
    grep -q '^error: .*train.graph.*one of auto, on, off' log
}
