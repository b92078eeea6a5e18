# launch/bundle: what it packs runs in a chroot with glibc and a shell alone (tests/bundle has the long version); bad input.
load helpers
. "$BATS_TEST_DIRNAME/../bundle_machine.bash"

setup_file() {
    cd "$BATS_FILE_TMPDIR" || return 1
    . "$BATS_TEST_DIRNAME/../bundle_machine.bash"
    WHY_NO_MACHINE=$(why_no_machine)
    export WHY_NO_MACHINE bundle
    [ -z "$WHY_NO_MACHINE" ] || return 0
    glibc_machine machine
    "$QUEST_ROOT/launch/bundle" --programs "$QUEST_BIN" --fast bundle.tar.xz
    unpack bundle.tar.xz machine
    rm bundle.tar.xz
}

setup() {
    [ -z "$WHY_NO_MACHINE" ] || skip "$WHY_NO_MACHINE"
    machine=$BATS_FILE_TMPDIR/machine
    cd "$BATS_TEST_TMPDIR" || return 1
}

@test "in an empty chroot: every program starts, 2 ranks train and are evaluated, a report is made" {
    for program in "$QUEST_BIN"/quest-*; do
        run -0 inside "$machine" "${program##*/}" --version
        [[ $output == QUEST-Train* ]]
    done
    small_config "$machine/tmp/config.yaml"
    inside "$machine" quest-data synth shapes --out /tmp/train.h5 --images 96 --size 16
    inside "$machine" quest-data synth shapes --out /tmp/val.h5 --images 50 --size 16 --split test
    inside "$machine" mpirun -q -np 2 quest-train /tmp/config.yaml --out /tmp/run --device cpu
    inside "$machine" mpirun -q -np 2 quest-eval --checkpoint /tmp/run/checkpoints/step_00000003.h5 --data /tmp/val.h5 --device cpu
    inside "$machine" quest-norms report /tmp/run --out /tmp/report.html
    grep -q Dygraph "$machine/tmp/report.html"
}

@test "the bundle's paths are for its own programs: a rank that is something else does not get them" {
    run -0 inside "$machine" mpirun -q -np 1 sh -c env
    ! grep -E "^(LD_LIBRARY_PATH|OPAL_|PMIX_(PREFIX|[A-Z]*(LIB|DATA|CONF)DIR)|VIPS)|=$bundle/(lib|share|etc)" <<<"$output"
}

@test "started through a link, and from a folder with spaces, which is too much for Open MPI alone" {
    mkdir "$machine/opt/a folder"
    mv "$machine$bundle" "$machine/opt/a folder/bundle"
    ln -s "/opt/a folder/bundle/bin/quest-train" "$machine/bin/train"
    run inside "$machine" train --version
    started=$output
    run inside "$machine" "/opt/a folder/bundle/bin/mpirun" -np 1 sh -c true
    rm "$machine/bin/train"
    mv "$machine/opt/a folder/bundle" "$machine$bundle"
    [[ $started == QUEST-Train* ]]
    one_error 2 'mpirun: .* folder whose name has spaces .*move the bundle'
}

@test "a CPU older than x86-64-v3, no glibc, an older glibc, no /proc: one line each" {
    GLIBC_TUNABLES=glibc.cpu.hwcaps=-AVX2 run inside "$machine" quest-train --version
    one_error 2 'quest-train: this machine cannot run the bundle: its CPU is older than x86-64-v3'
    loader=$machine/lib64/ld-linux-x86-64.so.2
    mv "$loader" kept
    run inside "$machine" mpirun --version
    one_error 2 'mpirun: .* has no glibc'
    for answer in 'ld.so (GNU libc) stable release version 2.28.' ''; do # 2.28 has no --version, and says how it is used
        printf '#!/bin/sh\n[ -n "%s" ] && echo "%s" || exit 127\n' "$answer" "$answer" >"$loader"
        chmod +x "$loader"
        run inside "$machine" quest-eval --version
        one_error 2 'its glibc is (2\.28|older than 2\.33), and 2\.[0-9]+ or newer is needed'
    done
    mv kept "$loader"
    run chroot "$machine" /bin/sh "$bundle/bin/quest-train" --version
    one_error 2 '/proc is not mounted'
}

@test "bad input of launch/bundle: one line, and nothing is left behind" {
    bundle=$QUEST_ROOT/launch/bundle
    run "$bundle"
    one_error 2 'no archive is named'
    run "$bundle" --programs . out.tar.xz
    one_error 2 "'\.' holds no quest-train"
    run "$bundle" --fast --programs "$QUEST_BIN" nowhere/out.tar.xz
    one_error 2 'there is no folder nowhere'
    run "$bundle" --fast --programs "$QUEST_BIN" /proc/out.tar.xz
    one_error 2 "'/proc/out.tar.xz' cannot be written"
    mkdir small scratch tools
    printf '#!/bin/sh\n/usr/bin/ldd "$@" | grep -v libyaml\n' >tools/ldd
    chmod +x tools/ldd
    run env PATH="$PWD/tools:$PATH" "$bundle" --fast --programs "$QUEST_BIN" out.tar.xz
    one_error 1 'quest-[a-z]+ needs libyaml-0.so.2, which is not on this machine'
    # shellcheck disable=SC2016 # for the inner shell to expand
    run unshare --mount sh -c 'mount -t tmpfs -o size=2m tmpfs small && TMPDIR=$PWD/scratch "$@" small/out.tar.xz; status=$?; ls small scratch
        exit $status' sh "$bundle" --fast --programs "$QUEST_BIN"
    one_error 1 "'small/out.tar.xz' could not be written: .*No space left"
    [ -z "$(grep -E '^(out.tar|quest-bundle)' <<<"$output")" ]
    # shellcheck disable=SC2016
    run unshare --mount sh -c 'mount -t tmpfs -o size=2m tmpfs scratch && TMPDIR=$PWD/scratch "$@" out.tar.xz; status=$?; ls scratch; exit $status' \
        sh "$bundle" --fast --programs "$QUEST_BIN"
    one_error 1 'No space left on device .TMPDIR names'
    [ -z "$(grep '^quest-bundle' <<<"$output")" ]
    [ ! -e out.tar.xz ] && [ ! -e out.tar.xz.partial ]
}
