# Datasets of several files: made by any number of ranks, again after a kill, and trained on as if they were one.
load helpers
setup_file() {
    make_datasets
    make_photos
    quest-data import-folder photos --out set.h5 --shards 5
    quest-data import-folder photos --out valset.h5 --shards 2
    whole set
    whole valset
}
setup() { cd "$BATS_TEST_TMPDIR" || return 1; }

# whole NAME: NAME_whole.h5, the images of the set NAME one after the other, with the moments of their exact sums
whole() {
    /usr/bin/python3 - "$1" <<'PYTHON'
import glob, sys, h5py, numpy as np
files = [h5py.File(path) for path in sorted(glob.glob(f"{sys.argv[1]}-*.h5"))]
images = np.concatenate([f["images"][...] for f in files])
exact = images.astype(np.uint64)
count, total, squares = exact[..., 0].size, exact.sum((0, 1, 2)), (exact * exact).sum((0, 1, 2))
mean = total.astype(np.longdouble) / count
std = np.sqrt(squares.astype(np.longdouble) / count - mean * mean)
with h5py.File(f"{sys.argv[1]}_whole.h5", "w") as out:
    out.create_dataset("images", data=images, chunks=(1, *images.shape[1:]))
    out["labels"] = np.concatenate([f["labels"][...] for f in files])
    out.create_dataset("class_names", data=[b"a", b"b"], dtype=h5py.string_dtype())
    out.attrs.update({"format": "quest-images", "version": 1, "classes": 2})
    out.attrs["mean"], out.attrs["std"] = (mean / 255).astype("f4"), (std / 255).astype("f4")
PYTHON
}

# copy NAME: the set, to be spoiled
copy() { cp "$BATS_FILE_TMPDIR/$1"-*.h5 .; }

@test "any number of ranks makes the same files, which hold what one file holds" {
    for n in 1 3; do
        mkdir $n
        ranks $n quest-data import-folder "$BATS_FILE_TMPDIR/photos" --out $n/set.h5 --shards 5 --workers $n >out
        [ "$(cat out)" = "$n/set.h5: 48 images in 5 files, of which 0 were there already" ]
        for i in 0 1 2 3 4; do
            cmp "$n/set-0000$i-of-00005.h5" "$BATS_FILE_TMPDIR/set-0000$i-of-00005.h5"
        done
    done
    quest-data import-folder "$BATS_FILE_TMPDIR/photos" --out one.h5
    quest-data info --json one.h5 >one.json
    quest-data info --json "$BATS_FILE_TMPDIR/set-*.h5" >set.json
    for key in images encoding height width channels mean std class_list stored_bytes; do
        [ "$(json one.json "d['$key']")" = "$(json set.json "d['$key']")" ]
    done
    [ "$(json set.json "d['files']")" = 5 ]
    for i in 0 1 2 3 4; do # both classes in each
        quest-data info --json "1/set-0000$i-of-00005.h5" >shard.json
        json shard.json "min(c['images'] for c in d['class_list']) >= 4 and d['shard'] == $i" | grep -qx True
    done
    quest-data verify "1/set-*.h5"
}

@test "training on a set is training on one file, bit for bit, on two ranks, and after a stop in mid-epoch" {
    write_config config.yaml
    files=(--set data.train="$BATS_FILE_TMPDIR/set-*.h5" --set data.val="$BATS_FILE_TMPDIR/valset-*.h5" --set data.augment.crop_padding=0)
    quest-train config.yaml "${files[@]}" --out set
    quest-train config.yaml --set data.train="$BATS_FILE_TMPDIR/set_whole.h5" --set data.val="$BATS_FILE_TMPDIR/valset_whole.h5" \
        --set data.augment.crop_padding=0 --out whole
    same_state set/checkpoints/step_00000030.h5 whole/checkpoints/step_00000030.h5
    quest-train config.yaml "${files[@]}" --set train.batch_size=20 --out twice --max-steps 13
    quest-train config.yaml "${files[@]}" --set train.batch_size=20 --out twice --resume
    quest-train config.yaml "${files[@]}" --set train.batch_size=20 --out once
    same_state twice/checkpoints/step_00000030.h5 once/checkpoints/step_00000030.h5
    ranks 2 quest-train config.yaml "${files[@]}" --out two
    losses_agree two set 1e-4 30
    quest-eval --checkpoint set/checkpoints/step_00000030.h5 --data "$BATS_FILE_TMPDIR/valset-*.h5" --json set.json
    quest-eval --checkpoint set/checkpoints/step_00000030.h5 --data "$BATS_FILE_TMPDIR/valset_whole.h5" --json whole.json
    cmp set.json whole.json
}

@test "a window of shuffling: the same run on two ranks and after a stop, another than without" {
    write_config config.yaml
    files=(--set data.train="$BATS_FILE_TMPDIR/set-*.h5" --set data.val= --set data.augment.crop_padding=0 --set train.batch_size=20)
    quest-train config.yaml "${files[@]}" --set data.shuffle_window=11 --out once
    quest-train config.yaml "${files[@]}" --set data.shuffle_window=11 --set data.workers=3 --out twice --max-steps 13
    quest-train config.yaml "${files[@]}" --set data.shuffle_window=11 --out twice --resume
    same_state once/checkpoints/step_00000030.h5 twice/checkpoints/step_00000030.h5
    ranks 2 quest-train config.yaml "${files[@]}" --set data.shuffle_window=11 --out two
    losses_agree two once 1e-4 30
    quest-train config.yaml "${files[@]}" --out all
    run losses_agree all once 1e-4 30
    [ "$status" != 0 ]
}

@test "a set that lacks a file or holds a wrong one: one line that names it" {
    write_config config.yaml
    copy set
    rm set-00003-of-00005.h5
    run quest-train config.yaml --set data.train='set-*.h5' --out run
    one_error 2 'set-00003-of-00005.h5: is missing; 4 of the 5 files of set-\*.h5 are there'
    copy set
    edit_h5 set-00002-of-00005.h5 'f.attrs["classes"] = 3; del f["class_names"]'
    run quest-data info 'set-*.h5'
    one_error 2 'set-00002-of-00005.h5: has 3 classes, but set-00000-of-00005.h5 has 2'
    copy set
    edit_h5 set-00004-of-00005.h5 'f.attrs["mean"] = np.full(3, 0.3, "f4")'
    run ranks 2 quest-train config.yaml --set data.train='set-*.h5' --out run
    one_error 2 'set-00004-of-00005.h5: pixel_sums does not give its mean and std'
    cp set-00001-of-00005.h5 set-a.h5
    copy set
    run quest-data verify 'set-*.h5'
    one_error 2 'set-a.h5: is file 1 of 5, counted from 0, and so is set-00001-of-00005.h5'
    run quest-data info 'nothing-*.h5'
    one_error 2 'nothing-\*.h5: no file has a name that fits this pattern'
    run quest-data info set-*.h5
    one_error 2 "put a pattern in quotes"
}

@test "quest-eval does not write over a file of the set that it reads" {
    write_config config.yaml
    copy set
    quest-train config.yaml --set data.train='set-*.h5' --set data.val= --set data.augment.crop_padding=0 --out run --max-steps 1
    run quest-eval --checkpoint run/checkpoints/step_00000001.h5 --data 'set-*.h5' --logits set-00001-of-00005.h5
    one_error 2 'set-00001-of-00005.h5: is read by this evaluation'
    cmp set-00001-of-00005.h5 "$BATS_FILE_TMPDIR/set-00001-of-00005.h5"
}

@test "quest-bench loader reads a set" {
    quest-bench loader --data "$BATS_FILE_TMPDIR/set-*.h5" --image-size 16 --seconds 1 --json >bench.json
    [ "$(json bench.json "d['images_per_s'] > 0")" = True ]
}

@test "few descriptors are enough for many files" {
    quest-data import-folder "$BATS_FILE_TMPDIR/photos" --out many.h5 --shards 48 2>/dev/null
    run bash -c "ulimit -n 40; quest-data verify 'many-*.h5'"
    [ "$status" = 0 ]
    [[ $output == *"many-*.h5: 48 images, all whole"* ]]
}

# is_finished N: as many files of the set are there under their names
is_finished() { [ "$(find . -name 'big-*.h5' | wc -l)" -ge "$1" ]; }

@test "an import that is killed goes on where it was: finished files stay as they are" {
    /usr/bin/python3 -c '
import os, numpy as np
for index in range(400):
    os.makedirs(f"big/{index % 4}", exist_ok=True)
    with open(f"big/{index % 4}/{index}.ppm", "wb") as file:
        file.write(b"P6 200 200 255\n" + np.random.default_rng(index).integers(0, 256, 120000, np.uint8).tobytes())'
    quest-data import-folder big --out whole.h5 --encoding jpeg --shards 8
    ranks 2 quest-data import-folder big --out big.h5 --encoding jpeg --shards 8 --workers 1 3>&- &
    until is_finished 2; do # not wait_for: a fast machine would finish while it sleeps
        kill -0 $! && sleep 0.01
    done
    for process in $(pgrep -P "$(pgrep -P $! -x mpirun || echo $!)"); do
        kill -KILL "$process"
    done
    wait $! || true
    finished=(big-*.h5)
    echo "${#finished[@]} are finished"
    [ "${#finished[@]}" -ge 2 ] && [ "${#finished[@]}" -lt 8 ]
    stat --format='%i %y %n' "${finished[@]}" >before
    quest-data import-folder big --out big.h5 --encoding jpeg --shards 8 >out
    grep -qx "big.h5: 400 images in 8 files, of which ${#finished[@]} were there already" out
    stat --format='%i %y %n' "${finished[@]}" | cmp - before
    for i in 0 1 2 3 4 5 6 7; do
        cmp big-0000$i-of-00008.h5 whole-0000$i-of-00008.h5
    done
    [ "$(find . -name '*.tmp-*')" = "" ]
    rm big-00005-of-00008.h5 big/0/0.ppm # another list of files
    run ranks 2 quest-data import-folder big --out big.h5 --encoding jpeg --shards 8
    one_error 2 'big-0000[01]-of-00008.h5: exists already, but of another import'
    [ ! -e big-00005-of-00008.h5 ]
    quest-data import-folder big --out big.h5 --encoding jpeg --shards 8 --force
    quest-data info --json 'big-*.h5' | grep -q '"images":399'
}

@test "images that cannot be read are counted again when their file is kept" {
    cp -r "$BATS_FILE_TMPDIR/photos" .
    echo "no image" >photos/a/bad.ppm
    for attempt in first second; do
        echo "$attempt:"
        run quest-data import-folder photos --out set.h5 --shards 3
        one_error 1 'photos: 1 file could not be imported \(named above\); set.h5 holds the other 48 images'
    done
    [[ $output == *"of which 3 were there already"* ]]
}

@test "several ranks need a set, and a set no more files than images" {
    run ranks 2 quest-data import-folder "$BATS_FILE_TMPDIR/photos" --out one.h5
    [ "$status" = 2 ]
    [[ $output == *"several ranks make the files of a set: give --shards N, or do without mpirun"* ]]
    [ ! -e one.h5 ]
    run ranks 2 quest-data import-folder "$BATS_FILE_TMPDIR/photos" --out one.h5 --shards 49
    one_error 2 "--shards 49: .*photos holds only 48 images"
}
