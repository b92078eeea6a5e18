# make install, and what is installed works from another folder.
load helpers

@test "make install DESTDIR= PREFIX=: programs, launchers and configurations" {
    make -s -C "$QUEST_ROOT" install DESTDIR="$BATS_TEST_TMPDIR/root" PREFIX=/opt/quest
    cd "$BATS_TEST_TMPDIR/root/opt/quest"
    for program in quest-train quest-eval quest-data quest-bench; do
        [ -x bin/$program ]
    done
    share=share/quest-train
    [ -e $share/configs/demo.yaml ]
    for file in mpirun.sh slurm/train.sbatch; do [ -e $share/launch/$file ]; done
    for file in demo test; do [ ! -e $share/launch/$file ]; done # they build a checkout
    # its own programs, wherever it lies
    cd /
    run -0 env PATH=/usr/bin:/bin "$BATS_TEST_TMPDIR/root/opt/quest/$share/launch/mpirun.sh" -n 1 --dry-run quest-train x.yaml
    [[ $output == *"$BATS_TEST_TMPDIR/root/opt/quest/bin/quest-train x.yaml"* ]]
    run -0 env PATH=/usr/bin:/bin "$BATS_TEST_TMPDIR/root/opt/quest/$share/launch/mpirun.sh" -n 1 quest-train --version
}

@test "make help lists the targets" {
    run -0 make -s -C "$QUEST_ROOT" help
    for target in make test bench install clean; do [[ $output == *$target* ]]; done
}
