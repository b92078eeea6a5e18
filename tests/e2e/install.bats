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

@test "a program that was compiled for another CPU: one line instead of SIGILL, and nothing of it runs" {
    cd "$BATS_TEST_TMPDIR"
    # as if for Knights Landing: the answer to avx512er, which no later CPU has, becomes yes
    for program in quest-data quest-bench; do
        /usr/bin/python3 - "$QUEST_BIN/$program" "$program" "$QUEST_ROOT/src/base/cpu_needs.h" <<'PYTHON'
import re, sys
code = bytearray(open(sys.argv[1], "rb").read())
names = re.findall(r'X\(\w+, "(.*?)"\)', open(sys.argv[3]).read())
at = code.index(b"QUEST CPU needs\0") + 16 + names.index("avx512er")
assert code.count(b"QUEST CPU needs\0") == 1 and code[at] == 0
code[at] = 1
open(sys.argv[2], "wb").write(code)
PYTHON
        chmod +x "$program"
        run "./$program" --version
        one_error 2 "compiled for another CPU: this machine's has no avx512er; compile it here"
        [ "${#lines[@]}" = 1 ]
    done
    # what finds out does not use what may be missing
    run -0 objdump -d "$QUEST_ROOT/build/o/src/base/cpu_check.o"
    [[ $output == *'<cpu_check>:'* ]]
    ! grep -qE '%[xyz]mm|[[:space:]]v[a-z]+[[:space:]]' <<<"$output"
}
