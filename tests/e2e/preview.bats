#!/usr/bin/env bats
# quest-data preview: the first samples of a training as a picture.
bats_require_minimum_version 1.5.0
setup() {
    BUILD="${BUILD:-build}"
    data="$BUILD/bin/quest-data"
    work="$(mktemp -d)"
    "$data" synth shapes --images 64 --size 32 --out "$work/shapes.h5"
    cat >"$work/run.yaml" <<EOF2
model: {image_size: 32, patch_size: 8, dim: 64, depth: 1, heads: 1, drop_path: 0.5}
data:
  train: $work/shapes.h5
  interpolation: bicubic
  augment: {flip: true, random_resized_crop: true, rand_augment: rand-m9-mstd0.5-inc1, erase_probability: 0.25}
mix: {mixup: 0.8, cutmix: 1.0, per: image, group: 16}
train: {steps: 4, batch_size: 32}
EOF2
}

teardown() {
    rm -rf "$work"
}

# NAME [OPTION...]: the preview $work/NAME.png.
preview() {
    "$data" preview "$work/run.yaml" --out "$work/$1.png" "${@:2}"
}

# Python with `pictures`, a list of the named previews as arrays.
look() { # CODE NAME...
    /usr/bin/python3 -c "
import sys, numpy
from PIL import Image
pictures = [numpy.asarray(Image.open(f'$work/{name}.png')).astype(int) for name in sys.argv[1:]]
$1" "${@:2}"
}

plain=(--set data.augment.flip=false --set data.augment.random_resized_crop=false --set 'data.augment.rand_augment='
    --set data.augment.erase_probability=0 --set mix.mixup=0 --set mix.cutmix=0 --set data.shuffle=false)

@test "preview: a sheet of the size that its samples need, the same each time and with any number of workers" {
    run preview a
    [ "$status" -eq 0 ]
    [[ "$output" == *"24 samples of $work/shapes.h5"* ]]
    preview b --set data.workers=5
    cmp "$work/a.png" "$work/b.png"
    preview few --images 5
    look 'whole, few = pictures
assert whole.shape == (12 + 3 * 208, 12 + 8 * 172, 3), whole.shape
assert few.shape == (12 + 208, 12 + 5 * 172, 3), few.shape
assert (few[:, :-12] == whole[:220, :12 + 5 * 172 - 12]).all()' a few
}

@test "preview: without augmentation the stored images, in their order, under their names" {
    preview plain "${plain[@]}"
    look '
import h5py
file = h5py.File("'"$work/shapes.h5"'")
for i in range(24):
    top, left = 12 + i // 8 * 208, 12 + i % 8 * 172
    shown = pictures[0][top:top + 160:5, left:left + 160:5]
    assert abs(shown - file["images"][i].astype(int)).max() == 0, i
    text = pictures[0][top + 162:top + 196, left:left + 160]
    name = file["class_names"][file["labels"][i]].decode()
    assert (text[:18] == 0).any() and (text[18:] == 255).all(), name
    others = [j for j in range(24) if file["labels"][j] == file["labels"][i]]
    for j in others:
        again = pictures[0][12 + j // 8 * 208 + 162:12 + j // 8 * 208 + 180, 12 + j % 8 * 172:172 + j % 8 * 172]
        assert (again == text[:18]).all()' plain
}

@test "preview: erased boxes and partners are in the picture, weights under it" {
    preview plain "${plain[@]}"
    preview erased "${plain[@]}" --set data.augment.erase_probability=1
    preview mixed "${plain[@]}" --set mix.mixup=0.8
    look '
plain, erased, mixed = pictures
for i in range(24):
    top, left = 12 + i // 8 * 208, 12 + i % 8 * 172
    picture = lambda of: of[top:top + 160, left:left + 160]
    changed = (picture(erased) != picture(plain)).any(2)
    rows, columns = changed.any(1).nonzero()[0], changed.any(0).nonzero()[0]
    box = changed[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1]
    assert 0.01 < box.size / changed.size < 0.4 and box.mean() > 0.9, i
    second_line = mixed[top + 162 + 18:top + 196, left:left + 160]
    assert (picture(mixed) != picture(plain)).any() == (second_line == 0).any(), i
    partner = i // 16 * 16 + (i % 16 + 8) % 16
    if partner < 24:
        other = plain[12 + partner // 8 * 208:172 + partner // 8 * 208, 12 + partner % 8 * 172:172 + partner % 8 * 172]
        own, both = picture(plain), picture(mixed)
        use = abs(own - other) > 60
        weights = (both - other)[use] / (own - other)[use]
        assert weights.std() < 0.02, (i, weights.std())
assert sum((mixed[12 + y * 208 + 180:12 + y * 208 + 196] == 0).any() for y in range(3)) == 3' plain erased mixed
}

# MESSAGE ARGUMENT...: refused with it in one line; nothing is left but what was there.
refused() {
    local before
    before="$(ls "$work")"
    run --separate-stderr "$data" preview "${@:2}"
    echo "$stderr"
    [ "$status" -eq 2 ] && [ "${#stderr_lines[@]}" -eq 1 ]
    [[ "$stderr" == "error: "*"$1"* ]]
    [ "$(ls "$work")" = "$before" ]
}

@test "preview: bad input is one line, and leaves an older picture alone" {
    preview old
    cp "$work/old.png" "$work/copy.png"
    refused "no.yaml: No such file" "$work/no.yaml" --out "$work/a.png"
    refused "--out FILE is missing" "$work/run.yaml"
    refused "nowhere/a.png" "$work/run.yaml" --out "$work/nowhere/a.png"
    refused "--images" "$work/run.yaml" --out "$work/a.png" --images 0
    refused "optim.rate" "$work/run.yaml" --out "$work/a.png" --set optim.rate=1
    refused "gone.h5" "$work/run.yaml" --out "$work/old.png" --set "data.train=$work/gone.h5"
    refused "64 x 64" "$work/run.yaml" --out "$work/old.png" --set model.image_size=64
    cmp "$work/old.png" "$work/copy.png"
}
