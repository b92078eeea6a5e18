# data.stage: datasets copied to a disk of the host, read from there, and never half a copy.
load helpers
setup_file() {
    make_datasets
    make_photos
    quest-data import-folder photos --out set.h5 --shards 5
    quest-data import-folder photos --out one.h5
}
setup() {
    cd "$BATS_TEST_TMPDIR" || return 1
    write_config config.yaml
}
teardown() { umount "$BATS_TEST_TMPDIR/small" 2>/dev/null || true; }

@test "the copies are read, give the same bits, are shared by the ranks, and are made once" {
    files=(--set data.train="$BATS_FILE_TMPDIR/set-*.h5" --set data.val="$BATS_FILE_TMPDIR/one.h5" --set data.augment.crop_padding=0)
    quest-train config.yaml "${files[@]}" --out plain
    ranks 2 quest-train config.yaml "${files[@]}" --out two
    ranks 2 quest-train config.yaml "${files[@]}" --set data.stage=local/deep --out staged >log
    grep -qE '^data: 6 files copied to local/deep \(0.00 GB in [0-9.]+ s on all hosts\), 0 were there$' log
    same_state two/checkpoints/step_00000030.h5 staged/checkpoints/step_00000030.h5
    [ "$(find local/deep -type f | wc -l)" = 6 ]
    for file in "$BATS_FILE_TMPDIR"/set-*.h5 "$BATS_FILE_TMPDIR/one.h5"; do
        cmp local/deep/quest-*-"$(basename "$file")" "$file"
    done
    stat --format='%i %y %n' local/deep/* >before
    quest-train config.yaml "${files[@]}" --set data.stage=local/deep --out again >log
    grep -q '^data: 0 files copied .* 6 were there$' log
    same_state plain/checkpoints/step_00000030.h5 again/checkpoints/step_00000030.h5
    stat --format='%i %y %n' local/deep/* | cmp - before
    # that it is the copies that are read: spoiled ones are noticed in the loss
    for copy in local/deep/*-set-*.h5; do
        touch -r "$copy" time
        edit_h5 "$copy" 'f["images"][...] = 0'
        touch -r time "$copy"
    done
    quest-train config.yaml "${files[@]}" --set data.stage=local/deep --out spoiled
    run losses_agree spoiled plain 1e-4 30
    [ "$status" != 0 ]
}

@test "a file that has been made anew is copied anew; what is no whole copy does not count" {
    cp "$BATS_FILE_TMPDIR/train.h5" mine.h5
    stage=(--set data.train=mine.h5 --set data.val= --set data.stage=local --max-steps 1)
    quest-train config.yaml "${stage[@]}" --out a | grep -q '^data: 1 files copied'
    copy=$(echo local/quest-*-mine.h5)
    head -c 1000 mine.h5 >"$copy" # as a copy without a temporary name would leave it
    : >"$copy.tmp-$(hostname)-999999999"
    quest-train config.yaml "${stage[@]}" --out b | grep -q '^data: 1 files copied'
    cmp "$copy" mine.h5
    [ "$(find local -name '*.tmp-*')" = "" ]
    touch mine.h5
    quest-train config.yaml "${stage[@]}" --out c | grep -q '^data: 1 files copied'
    [ "$(find local -name 'quest-*-mine.h5' | wc -l)" = 2 ]
}

@test "a folder that cannot be made is an error" {
    : >file
    run ranks 2 quest-train config.yaml --set data.stage=file/local --out run
    one_error 2 'file: the directory cannot be made: File exists'
}

@test "without room the files are read from their own place, and one line says so" {
    mkdir small
    mount -t tmpfs -o size=1200k tmpfs small 2>/dev/null || skip "mounting a small file system is not allowed here"
    quest-train config.yaml --out plain
    quest-train config.yaml --set data.stage=small --out staged >log 2>&1
    [ "$(grep -c 'data.stage: small has no room for 2 files, the first on .*; they are read from their own place' log)" = 1 ]
    same_state plain/checkpoints/step_00000030.h5 staged/checkpoints/step_00000030.h5
    [ "$(ls -A small)" = "" ]
}
