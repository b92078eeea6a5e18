# launch/: install-deps and mpirun.sh.
load helpers
setup() {
    cd "$BATS_TEST_TMPDIR" || return 1
    launcher=$QUEST_ROOT/launch/mpirun.sh
    unset OMP_NUM_THREADS QUEST_BIND
}

fake() { # NAME BODY: a command of that name, first on PATH
    mkdir -p fakes
    printf '#!/bin/bash\n%s\n' "$2" >"fakes/$1"
    chmod +x "fakes/$1"
}

@test "install-deps: nothing missing, nothing said, nothing called" {
    fake apt-get 'echo called >>apt.log; exit 1'
    run -0 env PATH="$PWD/fakes:$PATH" "$QUEST_ROOT/launch/install-deps" --tests
    [ -z "$output" ]
    [ ! -e apt.log ]
}

@test "install-deps: installs by name what is missing, with sudo only when not root" {
    fake dpkg-query 'for p; do [ "$p" = bats ] || echo "installed $p"; done'
    fake apt-get 'echo "apt-get $*" >>calls'
    fake sudo 'echo "sudo $*" >>calls'
    fake id 'echo 0'
    run -0 env PATH="$PWD/fakes:$PATH" "$QUEST_ROOT/launch/install-deps" --tests
    [[ $output == "install-deps: installing "*": bats"* ]]
    [ "$(cat calls)" = $'apt-get update -q\napt-get install -q -y --no-install-recommends bats' ]
    rm calls
    fake id 'echo 1000'
    run -0 env PATH="$PWD/fakes:$PATH" "$QUEST_ROOT/launch/install-deps" --tests
    [ "$(sed -n 1p calls)" = 'sudo apt-get update -q' ]
    [ "$(grep -c '^apt-get' calls)" = 0 ]
    run env PATH="$PWD/fakes:$PATH" "$QUEST_ROOT/launch/install-deps" --everything
    one_error 2 "'--everything'"
}

@test "install-deps: apt-get's words are kept where it fails, and only there" {
    fake dpkg-query 'for p; do [ "$p" = bats ] || echo "installed $p"; done'
    fake apt-get 'echo "E: no such luck"; exit 100'
    fake id 'echo 0'
    run -1 env TMPDIR="$PWD" PATH="$PWD/fakes:$PATH" "$QUEST_ROOT/launch/install-deps" --tests
    [[ $output == *"E: no such luck"*"error: install-deps: apt-get failed"*"$PWD/quest-install-deps."* ]]
    grep -q 'no such luck' quest-install-deps.*
    rm quest-install-deps.*
    fake apt-get 'echo chatter'
    run -0 env TMPDIR="$PWD" PATH="$PWD/fakes:$PATH" "$QUEST_ROOT/launch/install-deps" --tests
    [[ $output != *chatter* ]]
    [ -z "$(find . -name 'quest-install-deps.*')" ]
}

@test "install-deps names every library that the Makefile links" {
    listed=$("$QUEST_ROOT/launch/install-deps" --list)
    for package in libopenmpi-dev libhdf5-openmpi-dev libjansson-dev libyaml-dev libvips-dev libturbojpeg0-dev libdnnl-dev; do
        grep -qx $package <<<"$listed"
    done
}

@test "mpirun.sh: threads are the cores divided by the ranks, and ranks are bound where there are enough cores" {
    fake nproc 'echo 8'
    fake lscpu 'for c in 0 1 2 3 4 5 6 7; do echo $c,0; done'
    fake nvidia-smi 'exit 1'
    export PATH=$PWD/fakes:$PATH
    run -0 "$launcher" --dry-run -n 4 true
    [[ $output == "OMP_NUM_THREADS=2 mpirun -n 4 "*"slot:PE=2 --bind-to core"* ]]
    run -0 "$launcher" --dry-run true
    [[ $output == "OMP_NUM_THREADS=1 mpirun -n 8 "* ]]
    run -0 "$launcher" --dry-run -n 4 --threads 3 true
    [[ $output == "OMP_NUM_THREADS=3 mpirun -n 4 "*"--bind-to none"* ]]
    run -0 "$launcher" --dry-run -n 2 --bind none true
    [[ $output == "OMP_NUM_THREADS=4 "*"--bind-to none"* ]]
    run -0 "$launcher" --dry-run -n 9 true
    [[ $output == "warning: "*"9 ranks on 8 cores"*"--oversubscribe"* ]]
    run -0 "$launcher" --dry-run --oversubscribe -n 9 true
    [[ $output != *warning* ]]
}

@test "mpirun.sh: one rank a GPU" {
    fake nproc 'echo 8'
    fake lscpu 'for c in 0 1 2 3 4 5 6 7; do echo $c,0; done'
    fake nvidia-smi 'printf "GPU 0: A100\nGPU 1: A100\n"'
    export PATH=$PWD/fakes:$PATH
    run -0 "$launcher" --dry-run true
    [[ $output == "OMP_NUM_THREADS=4 mpirun -n 2 "* ]]
    CUDA_VISIBLE_DEVICES=1 run -0 "$launcher" --dry-run true
    [[ $output == "OMP_NUM_THREADS=8 mpirun -n 1 "* ]]
    for visible in 1,-1,0 GPU-8932f937-d72c-4106-c12f-20bd9faed9f6 MIG-GPU-8932f937; do
        CUDA_VISIBLE_DEVICES=$visible run -0 "$launcher" --dry-run true
        [[ $output == "OMP_NUM_THREADS=8 mpirun -n 1 "* ]]
    done
    for visible in -1 ''; do # no GPU: one rank a core
        CUDA_VISIBLE_DEVICES=$visible run -0 "$launcher" --dry-run true
        [[ $output == "OMP_NUM_THREADS=1 mpirun -n 8 "* ]]
    done
}

@test "mpirun.sh: a hostfile's slots, and a Slurm job's tasks" {
    printf '# comment\nnode1 slots=2\n\nnode2 slots=3 max_slots=4\n' >hosts
    run -0 "$launcher" --dry-run --hostfile hosts true
    [[ $output == *"mpirun -n 5 --hostfile hosts"* ]]
    run -0 env SLURM_JOB_ID=1 SLURM_NTASKS=4 SLURM_JOB_NUM_NODES=2 'SLURM_TASKS_PER_NODE=2(x2)' SLURM_CPUS_ON_NODE=6 "$launcher" --dry-run true
    [[ $output == "OMP_NUM_THREADS=3 mpirun -n 4 "*"PE=3"* ]]
    printf 'localhost slots=2\n' >hosts
    run -0 "$launcher" --bind none --hostfile hosts bash -c 'echo "$OMPI_COMM_WORLD_RANK of $OMPI_COMM_WORLD_SIZE"'
    [ "$(sort <<<"$output")" = $'0 of 2\n1 of 2' ]
}

@test "mpirun.sh: the environment reaches the ranks, and their status comes back" {
    export QUEST_TEST_VALUE='two words' NCCL_DEBUG=WARN
    # stderr apart: on one core it warns
    run -0 --separate-stderr "$launcher" -n 2 --bind none --threads 3 bash -c 'echo "$OMP_NUM_THREADS $QUEST_TEST_VALUE $NCCL_DEBUG"'
    [ "$output" = $'3 two words WARN\n3 two words WARN' ]
    run "$launcher" -n 2 --bind none bash -c 'exit 2'
    [ "$status" = 2 ]
}

@test "mpirun.sh: bad usage" {
    for arguments in "" "-n" "-n 0 true" "-n two true" "--threads x true" "--colour true" "--bind tight true" \
        "--hostfile gone true" "quest-nothing" "./nothing"; do
        run "$launcher" $arguments
        one_error 2 "mpirun\.sh"
    done
}

@test "norms-table: first and last record of each layer, over heads" {
    mkdir run
    record() { echo "{\"step\":$1,\"layer\":$2,\"q_norm_mean\":[1,2],\"k_norm_max\":[$3,0.5],\"logit_max\":[-1,$3],\"entropy_mean\":[2.5,1.5],\"qkv_grad_norm\":1}"; }
    { record 1 0 3 && record 1 1 4 && record 10 0 5 && record 20 0 6 && record 20 1 7.25; } >run/norms.jsonl
    run -0 "$QUEST_ROOT/launch/norms-table" run
    echo "$output"
    [ "$(awk 'NR > 1 { print $(NF - 4), $(NF - 3), $(NF - 2), $(NF - 1), $NF }' <<<"$output")" = "1 3.000 1.500 3.000 2.000
20 6.000 1.500 6.000 2.000
1 4.000 1.500 4.000 2.000
20 7.250 1.500 7.250 2.000" ]
    run "$QUEST_ROOT/launch/norms-table" nowhere
    one_error 2 'nowhere'
}

@test "every script is clean under bash -n and says its usage" {
    for script in mpirun.sh install-deps; do
        run -0 "$QUEST_ROOT/launch/$script" --help
        [[ $output == *launch/$script* ]]
    done
    for script in "$QUEST_ROOT"/launch/{demo,test,install-deps,mpirun.sh,slurm/train.sbatch}; do bash -n "$script"; done
}
