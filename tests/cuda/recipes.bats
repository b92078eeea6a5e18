# The recipes on the CUDA backend, on a GPU or in the simulator: what DeiT's and DeiT III's trainings add to a step gives the
# CPU's loss curve, the same bits from recorded passes, and the same run on two GPUs.
load ../e2e/helpers
setup_file() {
    make_datasets
    write_config config.yaml
    sed -i 's/^train: {steps: 30/train: {products: first, steps: 12/' config.yaml
}
setup() {
    cd "$BATS_TEST_TMPDIR" || return 1
    config=$BATS_FILE_TMPDIR/config.yaml
    mixed=(--set data.augment.erase_probability=0.5 --set mix.mixup=0.8 --set mix.cutmix=1 --set mix.group=4
        --set model.drop_path=0.2)
    deit=("${mixed[@]}" --set train.label_smoothing=0.1)
    deit3=("${mixed[@]}" --set train.loss=bce --set model.drop_path_rule=constant --set model.layer_scale=1.0e-4
        --set optim.kind=lamb --set ema.decay=0.9)
}

# on DEVICE RANKS PROGRAM ARGUMENT...
on() {
    local device=$1 count=$2
    shift 2
    # shellcheck disable=SC2086 # the launcher is words
    ranks "$count" ${GPUSIM:+$GPUSIM --devices 2 --threads 1 --} "$@" --device "$device"
}

two_gpus() { [ -n "${GPUSIM:-}" ] || [ "$(nvidia-smi -L | grep -c '^GPU')" -ge 2 ] || skip "one GPU only"; }

# follows_the_cpu NAME OPTION...: on one GPU, and recorded
follows_the_cpu() {
    local name=$1
    shift
    on cpu 1 quest-train "$config" "$@" --out "$name.cpu"
    on cuda 1 quest-train "$config" "$@" --set train.graph=off --out "$name.cuda"
    losses_agree "$name.cuda" "$name.cpu" 1e-4 12
    on cuda 1 quest-train "$config" "$@" --set train.graph=on --out "$name.graph"
    same_state "$name.graph/checkpoints/step_00000012.h5" "$name.cuda/checkpoints/step_00000012.h5"
}

@test "DeiT's steps, mixed and erased, are the CPU's" {
    follows_the_cpu deit "${deit[@]}"
    on cpu 1 quest-train "$config" --set train.label_smoothing=0.1 --out plain
    run losses_agree plain deit.cpu 1e-4 12
    [ "$status" != 0 ]
}

@test "DeiT III's steps are the CPU's" {
    follows_the_cpu deit3 "${deit3[@]}"
}

@test "LAMB's and SGD's steps, with learning rates by layer, are the CPU's" {
    follows_the_cpu lamb --set optim.kind=lamb --set optim.lr=0.01 --set optim.layer_decay=0.8
    follows_the_cpu sgd --set optim.kind=sgd --set optim.lr=0.1 --set optim.weight_decay=1e-4 --set optim.layer_decay=0.8
}

@test "two GPUs mix and erase as one does" {
    two_gpus
    on cuda 1 quest-train "$config" "${deit[@]}" --out one
    on cuda 2 quest-train "$config" "${deit[@]}" --out two
    losses_agree two one 1e-4 12
}

@test "Muon's and NMuon's steps, and those of a model that is frozen in part, are the CPU's" {
    follows_the_cpu muon --set optim.kind=muon --set optim.lr=0.02 --set model.layer_scale=0.1
    follows_the_cpu frozen --set optim.kind=nmuon --set optim.lr=0.02 --set model.freeze=1 --set model.drop_path=0.2
    follows_the_cpu probe --set model.freeze=all_but_head
    two_gpus
    on cuda 2 quest-train "$config" --set optim.kind=nmuon --set optim.lr=0.02 --set model.freeze=1 \
        --set model.drop_path=0.2 --set comm.bucket_mib=0.01 --out two
    losses_agree two frozen.cuda 1e-4 12
}
