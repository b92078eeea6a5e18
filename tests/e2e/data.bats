#!/usr/bin/env bats
# quest-data as a user meets it.

setup() {
    BUILD="${BUILD:-build}"
    data="$BUILD/bin/quest-data"
    work="$(mktemp -d)"
}

teardown() {
    rm -rf "$work"
}

@test "synth, info and verify agree with h5py" {
    "$data" synth spurious --images 40 --size 32 --out "$work/a.h5"
    "$data" verify "$work/a.h5"
    "$data" info --json "$work/a.h5" | /usr/bin/python3 -c '
import json, sys, h5py, numpy
info, file = json.load(sys.stdin), h5py.File(sys.argv[1])
images = file["images"][:] / 255.0
assert file.attrs["format"] == "quest-images" and file.attrs["version"] == 1
assert info["images"] == len(images) == 40 and file["images"].chunks == (1, 32, 32, 3)
assert numpy.allclose(images.mean((0, 1, 2)), file.attrs["mean"], atol=1e-6)
assert numpy.allclose(images.std((0, 1, 2)), info["std"], atol=1e-6)
' "$work/a.h5"
}

@test "an existing file is replaced only with --force" {
    "$data" synth shapes --images 20 --out "$work/a.h5"
    run "$data" synth shapes --images 20 --out "$work/a.h5"
    [ "$status" -eq 2 ]
    [[ "$output" == *"exists already"* ]]
    "$data" synth shapes --images 20 --out "$work/a.h5" --force
}

@test "a file system limit leaves no file behind" {
    run bash -c "ulimit -f 100; '$data' synth shapes --images 2000 --out '$work/a.h5'"
    [ "$status" -eq 1 ]
    [[ "$output" == *"cannot be written"* ]]
    [ -z "$(ls -A "$work")" ]
}

@test "a folder without classes, and an empty class" {
    mkdir "$work/d"
    run "$data" import-folder "$work/d" --out "$work/a.h5"
    [ "$status" -eq 2 ]
    [[ "$output" == *"holds no class folders"* ]]
    mkdir "$work/d/cat"
    run "$data" import-folder "$work/d" --out "$work/a.h5"
    [ "$status" -eq 2 ]
    [[ "$output" == *"holds no files"* ]]
}

@test "an unreadable image is named and left out; the exit status says so" {
    mkdir -p "$work/d/a" "$work/d/b"
    for class in a b; do
        { printf 'P6 20 20 255\n'; head -c 1200 /dev/urandom; } > "$work/d/$class/1.ppm"
    done
    echo "no image" > "$work/d/b/0.jpg"
    run "$data" import-folder "$work/d" --size 16 --out "$work/a.h5"
    [ "$status" -eq 1 ]
    [[ "$output" == *"skipped: $work/d/b/0.jpg"* ]]
    "$data" verify "$work/a.h5"
    "$data" info --json "$work/a.h5" | grep -q '"images":2'
}

@test "the binary version of CIFAR-10, and one that is cut short" {
    for name in data_batch_1 data_batch_2 data_batch_3 data_batch_4 data_batch_5 test_batch; do
        /usr/bin/python3 -c '
import numpy, sys
records = numpy.random.default_rng(0).integers(0, 256, (10000, 3073), dtype="u1")
records[:, 0] %= 10
records.tofile(sys.argv[1])' "$work/$name.bin"
    done
    "$data" import-cifar10 "$work" --out-train "$work/a.h5" --out-test "$work/b.h5"
    /usr/bin/python3 -c '
import h5py, numpy, sys
record = numpy.fromfile(sys.argv[1], "u1", 3073)
file = h5py.File(sys.argv[2])
assert file["labels"][0] == record[0] and (file["images"][0] == record[1:].reshape(3, 32, 32).transpose(1, 2, 0)).all()
' "$work/test_batch.bin" "$work/b.h5"
    truncate -s 1000000 "$work/test_batch.bin"
    run "$data" import-cifar10 "$work" --out-train "$work/a.h5" --out-test "$work/b.h5" --force
    [ "$status" -eq 2 ]
    [[ "$output" == *"test_batch.bin"* ]]
}

@test "bad usage is status 2 and says what is wrong" {
    run "$data" synth hexagons --out "$work/a.h5"
    [ "$status" -eq 2 ]
    [[ "$output" == *"'hexagons' is neither shapes nor spurious"* ]]
    run "$data" synth shapes --images 10x --out "$work/a.h5"
    [ "$status" -eq 2 ]
    [[ "$output" == *"--images: '10x'"* ]]
}
