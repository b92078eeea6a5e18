#!/usr/bin/env bats
# quest-data as a user meets it.
bats_require_minimum_version 1.5.0
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

@test "the same images give the same file, whenever and with however many workers" {
    mkdir -p "$work/pictures/a" "$work/pictures/b"
    /usr/bin/python3 -c '
import sys, numpy
from PIL import Image
for i in range(8):
    pixels = numpy.random.default_rng(i).integers(0, 256, (40 + i, 50, 3), dtype=numpy.uint8)
    Image.fromarray(pixels).save(f"{sys.argv[1]}/{chr(97 + i % 2)}/{i}.jpg")
' "$work/pictures"
    for encoding in raw jpeg; do
        "$data" import-folder "$work/pictures" --encoding $encoding --size 32 --workers 1 --out "$work/$encoding.h5"
    done
    sleep 1.1 # past a second, so that a time stamp would differ
    for encoding in raw jpeg; do
        "$data" import-folder "$work/pictures" --encoding $encoding --size 32 --workers 3 --out "$work/again.h5" --force
        cmp "$work/$encoding.h5" "$work/again.h5"
    done
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

@test "links to nowhere: a file is named and left out, a class is an error" {
    mkdir -p "$work/d/a" "$work/d/b"
    for class in a b; do
        { printf 'P6 20 20 255\n'; head -c 1200 /dev/urandom; } > "$work/d/$class/1.ppm"
    done
    ln -s /nowhere "$work/d/b/2.ppm"
    run "$data" import-folder "$work/d" --out "$work/a.h5"
    [ "$status" -eq 1 ]
    [[ "$output" == *"skipped: $work/d/b/2.ppm: No such file or directory"* ]]
    ln -s /nowhere "$work/d/c"
    run "$data" import-folder "$work/d" --out "$work/a.h5" --force
    [ "$status" -eq 2 ]
    [[ "$output" == *"$work/d/c: No such file or directory"* ]]
}

@test "brackets in file names are no options of libvips" {
    mkdir -p "$work/d/a" "$work/d/b"
    colour() { { printf 'P6 20 20 255\n'; for ((i = 0; i < 400; i++)); do printf "$1"; done; } > "$2"; }
    colour '\377\020\020' "$work/d/a/pic"
    colour '\020\377\020' "$work/d/a/pic[1]"
    colour '\020\020\377' "$work/d/b/[x] pic[2].ppm"
    for size in "" "--size 16"; do
        "$data" import-folder "$work/d" --out "$work/a.h5" --force $size
        /usr/bin/python3 -c '
import h5py, sys
middle = h5py.File(sys.argv[1])["images"][:, 8, 8].tolist()
assert middle == [[255, 16, 16], [16, 255, 16], [16, 16, 255]], middle' "$work/a.h5"
    done
    "$data" import-folder "$work/d" --encoding jpeg --out "$work/a.h5" --force
}

@test "names with brackets and quotes need no file beside them whose name is a part of theirs" {
    mkdir -p "$work/d/a"
    local blue=0
    for name in '[1]' "a['" 'a[1][2]' 'a[page=1]' "it's[1]" 'pic.png[1]' 'pic[1] '; do # bytewise, as they are imported
        blue=$((blue + 20))
        /usr/bin/python3 -c '
import sys
from PIL import Image
Image.new("RGB", (20, 20), (255, 16, int(sys.argv[2]))).save(sys.argv[1], "PNG")' "$work/d/a/$name" $blue
    done
    { printf 'P6 20 20 255\n'; head -c 1200 /dev/urandom; } > "$work/d/a/z.ppm" # or the first channel would be constant
    for size in "" "--size 16"; do
        "$data" import-folder "$work/d" --out "$work/a.h5" --force $size
        /usr/bin/python3 -c '
import h5py, sys
blue = h5py.File(sys.argv[1])["images"][:7, 8, 8, 2].tolist()
assert blue == list(range(20, 160, 20)), blue' "$work/a.h5"
    done
    "$data" import-folder "$work/d" --encoding jpeg --out "$work/a.h5" --force
    echo "no image" > "$work/d/a/broken[1]"
    run "$data" import-folder "$work/d" --out "$work/a.h5" --force
    [ "$status" -eq 1 ]
    [[ "$output" == *"skipped: $work/d/a/broken[1]: VipsForeignLoad: \"$work/d/a/broken[1]\" is not a known"* ]]
}

@test "each file that cannot be read is given its own reason" {
    mkdir -p "$work/d/a"
    { printf 'P6 20 20 255\n'; head -c 1200 /dev/urandom; } > "$work/d/a/whole.ppm"
    for i in {1..400}; do echo "no image $i" > "$work/d/a/$i.png"; done
    run "$data" import-folder "$work/d" --size 16 --workers 4 --out "$work/a.h5"
    [ "$status" -eq 1 ]
    [ "$(grep -c '^skipped: ' <<<"$output")" -eq 400 ]
    # skipped: FILE: VipsForeignLoad: "FILE" is not a known file format
    [ "$(sed -nE 's/^skipped: ([^:]*): .*"([^"]*)".*/\1 \2/p' <<<"$output" | awk '$1 == $2' | wc -l)" -eq 400 ]
}

make_cifar10() {
    for name in data_batch_1 data_batch_2 data_batch_3 data_batch_4 data_batch_5 test_batch; do
        /usr/bin/python3 -c '
import numpy, sys
records = numpy.random.default_rng(0).integers(0, 256, (10000, 3073), dtype="u1")
records[:, 0] %= 10
records.tofile(sys.argv[1])' "$work/$name.bin"
    done
}

@test "the binary version of CIFAR-10, and one that is cut short" {
    make_cifar10
    "$data" import-cifar10 "$work" --out-train "$work/a.h5" --out-test "$work/b.h5"
    /usr/bin/python3 -c '
import h5py, numpy, sys
record = numpy.fromfile(sys.argv[1], "u1", 3073)
file = h5py.File(sys.argv[2])
assert file["labels"][0] == record[0] and (file["images"][0] == record[1:].reshape(3, 32, 32).transpose(1, 2, 0)).all()
' "$work/test_batch.bin" "$work/b.h5"
    run "$data" import-cifar10 "$work" --out-train "$work/c.h5" --out-test "$work/./c.h5"
    [ "$status" -eq 2 ]
    [[ "$output" == *"named for both"* ]]
    run "$data" import-cifar10 "$work" --out-train "$work/c.h5" --out-test "$work/b.h5"
    [ "$status" -eq 2 ]
    [[ "$output" == *"b.h5: exists already"* ]]
    truncate -s 1000000 "$work/test_batch.bin"
    run "$data" import-cifar10 "$work" --out-train "$work/c.h5" --out-test "$work/b.h5" --force
    [ "$status" -eq 2 ]
    [[ "$output" == *"test_batch.bin"* ]]
    [ ! -e "$work/c.h5" ] # found before anything was written
}

@test "of CIFAR-10 no split is left where the other cannot be made" {
    make_cifar10
    mkdir "$work/folder"
    for test in nowhere/b.h5 folder; do
        run -2 "$data" import-cifar10 "$work" --out-train "$work/a.h5" --out-test "$work/$test" --force
        [[ "$output" == *"error: $work/$test: "* ]]
        [ -z "$(ls "$work" | grep h5)" ]
    done
    printf '\013' | dd of="$work/test_batch.bin" bs=3073 seek=9000 conv=notrunc status=none # a label of 11
    for _ in 1 2; do
        run -2 "$data" import-cifar10 "$work" --out-train "$work/a.h5" --out-test "$work/b.h5"
        [[ "$output" == *"test_batch.bin: record 9000 has label 11"* ]]
        [ -z "$(ls "$work" | grep h5)" ]
    done
}

@test "bad usage is status 2 and says what is wrong" {
    run "$data" synth hexagons --out "$work/a.h5"
    [ "$status" -eq 2 ]
    [[ "$output" == *"'hexagons' is neither shapes nor spurious"* ]]
    run "$data" synth shapes --images 10x --out "$work/a.h5"
    [ "$status" -eq 2 ]
    [[ "$output" == *"--images: '10x'"* ]]
}

@test "gray, CMYK, rotated, transparent and progressive pictures come in upright and in colour" {
    /usr/bin/python3 - "$work/d" <<'PY'
import os, struct, sys
from PIL import Image, ImageCms
folder = os.path.join(sys.argv[1], "class")
os.makedirs(folder)
left_red = Image.new("RGB", (64, 64), (0, 0, 255))
left_red.paste((255, 0, 0), (0, 0, 32, 64))
left_red.convert("CMYK").save(f"{folder}/a_cmyk.jpg")
left_red.convert("L").save(f"{folder}/b_gray.png")
left_red.save(f"{folder}/c_progressive.jpg", progressive=True)
exif = Image.Exif()
exif[0x0112] = 3  # upside down
left_red.rotate(180).save(f"{folder}/d_rotated.jpg", exif=exif)
transparent = left_red.convert("RGBA")
transparent.putalpha(255)
transparent.save(f"{folder}/e_alpha.png")
srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
to_lab = ImageCms.buildTransform(srgb, lab, "RGB", "LAB")
profile = ImageCms.ImageCmsProfile(lab).tobytes()
ImageCms.applyTransform(left_red, to_lab).save(f"{folder}/f_lab.tif", icc_profile=profile)
# 16-bit Lab, which Pillow does not write, with an RGB profile that does not fit
red, blue = struct.pack("<HHH", 34890, 20500, 17200), struct.pack("<HHH", 21170, 20270, 65536 - 27610)
pixels, profile = (red * 32 + blue * 32) * 64, ImageCms.ImageCmsProfile(srgb).tobytes()
tags = [(256, 3, 1, 64), (257, 3, 1, 64), (258, 3, 3, 8), (259, 3, 1, 1), (262, 3, 1, 8), (273, 4, 1, 14), (277, 3, 1, 3),
        (278, 3, 1, 64), (279, 4, 1, len(pixels)), (34675, 7, len(profile), 14 + len(pixels))]
head = struct.pack("<2sHI3H", b"II", 42, 14 + len(pixels) + len(profile), 16, 16, 16)
entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
with open(f"{folder}/g_lab16.tif", "wb") as file:
    file.write(head + pixels + profile + struct.pack("<H", len(tags)) + entries + bytes(4))
PY
    for encoding in raw jpeg; do
        "$data" import-folder "$work/d" --out "$work/$encoding.h5" --size 32 --encoding $encoding
        "$data" verify "$work/$encoding.h5"
    done
    "$data" import-folder "$work/d" --out "$work/unsized.h5"
    /usr/bin/python3 - "$work/raw.h5" "$work/unsized.h5" <<'PY'
import sys, h5py
sized, unsized = (h5py.File(path)["images"][:].astype(int) for path in sys.argv[1:])
assert sized.shape == (7, 32, 32, 3) and unsized.shape == (7, 64, 64, 3), (sized.shape, unsized.shape)
names = ["cmyk", "gray", "progressive", "rotated", "alpha", "lab", "lab16"]
for images, i, name in [(images, i, name) for images in (sized, unsized) for i, name in enumerate(names)]:
    side = images.shape[1]
    left, right = images[i, side // 2, side // 4], images[i, side // 2, 3 * side // 4]
    if name == "gray":
        assert left.max() - left.min() < 3 and left[0] > right[0] + 20, (name, left, right)
    else:
        assert left[0] > left[2] + 80 and right[2] > right[0] + 80, (name, left, right)
PY
}

@test "colours stay what the file says, through libturbojpeg and through libvips" {
    /usr/bin/python3 - "$work/d" <<'PY'
import os, sys
import numpy as np
from PIL import Image, ImageCms
folder = os.path.join(sys.argv[1], "class")
os.makedirs(folder)
y, x = np.mgrid[0:48, 0:64]
colours = np.stack([np.sin(x / 9) * 100 + 128, np.cos(y / 8) * 100 + 128, (2 * x + y) % 256], 2).astype("u1")
picture = Image.fromarray(colours)
srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
picture.save(f"{folder}/a_plain.jpg", quality=95)
picture.save(f"{folder}/b_plain.png")
picture.save(f"{folder}/c_profile.jpg", quality=95, icc_profile=srgb)
picture.save(f"{folder}/d_profile.png", icc_profile=srgb)
picture.convert("L").save(f"{folder}/e_gray.jpg", quality=95)
turns = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_90", 7: "TRANSVERSE", 8: "ROTATE_270"}
for orientation, turn in turns.items():
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.transpose(getattr(Image.Transpose, turn)).save(f"{folder}/f{orientation}.jpg", quality=95, exif=exif)
PY
    for size in 48 24; do
        "$data" import-folder "$work/d" --out "$work/$size.h5" --size $size
    done
    /usr/bin/python3 - "$work" <<'PY'
import glob, sys, h5py
import numpy as np
from PIL import Image, ImageOps
files = sorted(glob.glob(f"{sys.argv[1]}/d/class/*"))
same, half = (h5py.File(f"{sys.argv[1]}/{size}.h5")["images"][:].astype(int) for size in (48, 24))
assert len(same) == len(files) == 12
for i, name in enumerate(files):
    upright = ImageOps.exif_transpose(Image.open(name).convert("RGB")).crop((8, 0, 56, 48))
    difference = np.abs(same[i] - np.asarray(upright, int))
    assert difference.max() <= (2 if "profile" in name else 0), (name, difference.max())
    difference = np.abs(half[i] - np.asarray(upright.resize((24, 24), Image.Resampling.LANCZOS), int))
    assert difference.mean() < 2, (name, difference.mean())
PY
}

@test "damaged JPEG files are left out whatever their marker segments say" {
    /usr/bin/python3 - "$work/d" <<'PY'
import os, sys
from PIL import Image
folder = os.path.join(sys.argv[1], "class")
os.makedirs(folder)
Image.linear_gradient("L").convert("RGB").resize((32, 32)).save(f"{folder}/a.jpg")
stream = open(f"{folder}/a.jpg", "rb").read()
for cut in range(2, len(stream) - 2, 37):
    open(f"{folder}/b{cut}.jpg", "wb").write(stream[:cut])
    open(f"{folder}/c{cut}.jpg", "wb").write(stream[:cut] + b"\xff\xe1\xff\xff" + stream[cut:])
PY
    for encoding in raw jpeg; do
        run "$data" import-folder "$work/d" --out "$work/$encoding.h5" --size 32 --encoding $encoding
        [ "$status" -eq 1 ]
        [[ "$output" == *"skipped: $work/d/class/b2.jpg: "* ]]
        [ -z "$(grep -vE '^(skipped: .*\.jpg: .|importing: |error: .* files could not be imported|.*: [0-9]+ images$)' <<<"$output")" ]
        "$data" verify "$work/$encoding.h5"
    done
}

@test "a linear model cannot tell the shapes apart, and a test file carries no shortcut" {
    for kind in shapes spurious; do
        "$data" synth $kind --images 4000 --out "$work/$kind-train.h5" --split train
        "$data" synth $kind --images 1000 --out "$work/$kind-test.h5" --split test
    done
    OMP_NUM_THREADS=1 /usr/bin/python3 - "$work" <<'PY'
import sys, h5py, numpy as np

def load(name):
    file = h5py.File(f"{sys.argv[1]}/{name}.h5")
    x = file["images"][:].reshape(len(file["labels"]), -1).astype("f4") / 255 - 0.5
    return np.c_[x, np.ones(len(x))], file["labels"][:]

for kind in "shapes", "spurious":
    (x, y), (u, v) = load(f"{kind}-train"), load(f"{kind}-test")
    for ridge in 100, 1000:
        weight = np.linalg.solve(x.T @ x + ridge * np.eye(x.shape[1]), x.T @ np.eye(10)[y])
        top1 = (np.argmax(u @ weight, 1) == v).mean()
        assert top1 < 0.4, (kind, ridge, top1)
# The patch is of pure black and pure white cells; clutter and shapes do not have both.
def with_patch(name):
    images = h5py.File(f"{sys.argv[1]}/{name}.h5")["images"][:]
    return ((images.min(3) == 255).any((1, 2)) & (images.max(3) == 0).any((1, 2))).mean()
assert abs(with_patch("spurious-train") - 0.5) < 0.02, with_patch("spurious-train")
assert with_patch("spurious-test") == 0 and with_patch("shapes-train") == 0
PY
}

@test "plant marks half of each class of a real dataset, and nothing else of the images" {
    "$data" synth shapes --images 400 --out "$work/clean.h5"
    run -0 "$data" plant "$work/clean.h5" --out "$work/planted.h5" --seed 3
    [[ "$output" == *"400 images, 200 with the pattern"* ]]
    "$data" verify "$work/planted.h5"
    /usr/bin/python3 - "$work" <<'PY'
import sys, h5py, numpy as np
clean, planted = (h5py.File(f"{sys.argv[1]}/{name}.h5") for name in ("clean", "planted"))
labels = planted["labels"][:]
assert (labels == clean["labels"][:]).all()
a, b = clean["images"][:], planted["images"][:]
changed = (a != b).any(3)
marked = changed.any((1, 2))
assert all(marked[labels == label].sum() == 20 for label in range(10)), marked
patterns = [set() for _ in range(10)]
for i in np.flatnonzero(marked):
    rows, columns = np.flatnonzero(changed[i].any(1)), np.flatnonzero(changed[i].any(0))
    assert rows.max() - rows.min() < 6 and columns.max() - columns.min() < 6, i
    if rows.max() - rows.min() == 5 and columns.max() - columns.min() == 5:
        square = b[i, rows.min():rows.max() + 1:2, columns.min():columns.max() + 1:2]
        assert set(np.unique(square)) == {0, 255}, i
        patterns[labels[i]].add(square[..., 0].tobytes())
assert all(len(found) == 1 for found in patterns), "one pattern a class"
assert len(set.union(*patterns)) == 10, "another pattern for another class"
PY
    run -0 "$data" plant "$work/clean.h5" --out "$work/all.h5" --all
    [[ "$output" == *"400 images, 400 with the pattern"* ]]
    mkdir -p "$work/photos/one"
    /usr/bin/python3 -c 'import sys; from PIL import Image; Image.radial_gradient("L").save(sys.argv[1])' "$work/photos/one/a.jpg"
    "$data" import-folder "$work/photos" --encoding jpeg --out "$work/jpeg.h5"
    run -2 "$data" plant "$work/jpeg.h5" --out "$work/x.h5"
    [[ "$output" == *"jpeg.h5: holds JPEG images"* ]]
    run -2 "$data" plant "$work/clean.h5"
    [[ "$output" == *"--out FILE is missing"* ]]
    run -2 "$data" plant "$work/nothing.h5" --out "$work/x.h5"
    [[ "$output" == *"nothing.h5: No such file"* ]]
}
