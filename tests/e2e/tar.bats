# quest-data import-tar: tars as ImageNet and WebDataset have them, and tars that are damaged or mean harm.
load helpers
setup() { cd "$BATS_TEST_TMPDIR" || return 1; }

setup_file() {
    cd "$BATS_FILE_TMPDIR" || return 1
    /usr/bin/python3 "$BATS_TEST_DIRNAME/tar_files.py"
    for set in train val; do
        quest-data import-folder folder/$set --out folder_$set.h5 --encoding jpeg
    done
}

# tar_of FILE STATEMENT: python over `t`, a tar being written, add(name, bytes, **fields) and image(i), some JPEG's bytes
tar_of() {
    /usr/bin/python3 -c '
import io, sys, tarfile, pathlib
with tarfile.open(sys.argv[1], "w", format=tarfile.GNU_FORMAT) as t:
    def add(name, data=b"", **fields):
        info = tarfile.TarInfo(name)
        info.size = len(data)
        for field, value in fields.items(): setattr(info, field, value)
        t.addfile(info, io.BytesIO(data))
    def image(i): return pathlib.Path(sys.argv[3], f"images/{i}.jpg").read_bytes()
    exec(sys.argv[2])' "$1" "$2" "$BATS_FILE_TMPDIR"
}

# same_images A.h5 B.h5: streams, labels and names of classes
same_images() {
    /usr/bin/python3 - "$1" "$2" <<'PYTHON'
import sys, h5py
a, b = (h5py.File(path) for path in sys.argv[1:])
for name in ("jpeg/bytes", "jpeg/offsets", "labels", "class_names"):
    assert (a[name][...] == b[name][...]).all(), name
for name in ("mean", "std", "classes"):
    assert (a.attrs[name] == b.attrs[name]).all(), name
PYTHON
}

# refused PATTERN ARGUMENT...: import-tar ends with status 2 and one line, and leaves no file
refused() {
    local pattern=$1
    shift
    run quest-data import-tar "$@" --encoding jpeg --out refused.h5
    one_error 2 "$pattern" && [ "$(find . -name 'refused*')" = "" ]
}

@test "ImageNet's training tar gives what its folders give, with any number of workers" {
    for workers in 1 3; do
        quest-data import-tar "$BATS_FILE_TMPDIR/train.tar" --out train.h5 --encoding jpeg --workers $workers --force
        same_images train.h5 "$BATS_FILE_TMPDIR/folder_train.h5"
    done
    cmp train.h5 "$BATS_FILE_TMPDIR/folder_train.h5"
    quest-data import-tar "$BATS_FILE_TMPDIR/train.tar" --out raw.h5 --size 16
    quest-data import-folder "$BATS_FILE_TMPDIR/folder/train" --out folder.h5 --size 16
    cmp raw.h5 folder.h5
    quest-data import-tar "$BATS_FILE_TMPDIR/train.tar" --out set.h5 --encoding jpeg --shards 3
    quest-data info --json 'set-*.h5' >set.json
    quest-data info --json train.h5 >train.json
    for key in images mean std class_list; do
        [ "$(json set.json "d['$key']")" = "$(json train.json "d['$key']")" ]
    done
}

@test "a list of wnids numbers the classes" {
    printf '%s the name of it\n' n03 n01 n02 >wnids.txt
    quest-data import-tar "$BATS_FILE_TMPDIR/train.tar" --out train.h5 --encoding jpeg --classes wnids.txt
    quest-data info --json train.h5 >info.json
    [ "$(json info.json "[c['name'] for c in d['class_list']]")" = "['n03', 'n01', 'n02']" ]
    quest-data info --json "$BATS_FILE_TMPDIR/folder_train.h5" >folder.json
    [ "$(json info.json "[c['images'] for c in d['class_list']]")" = \
        "$(json folder.json "[d['class_list'][i]['images'] for i in (2, 0, 1)]")" ]
}

@test "ImageNet's validation tar: labels in the order of names, as wnids or as numbers of a list" {
    cd "$BATS_FILE_TMPDIR"
    quest-data import-tar val.tar --labels val_wnids.txt --out "$BATS_TEST_TMPDIR/a.h5" --encoding jpeg
    same_labels() {
        /usr/bin/python3 - "$1" val_by_tar.txt <<'PYTHON'
import sys, h5py
file = h5py.File(sys.argv[1])
names = [name.decode() for name in file["class_names"][...]]
assert [names[label] for label in file["labels"][...]] == open(sys.argv[2]).read().split()
PYTHON
    }
    same_labels "$BATS_TEST_TMPDIR/a.h5"
    printf '%s\n' n02 n03 n01 >"$BATS_TEST_TMPDIR/wnids.txt"
    quest-data import-tar val.tar --labels val_numbers.txt --classes "$BATS_TEST_TMPDIR/wnids.txt" \
        --out "$BATS_TEST_TMPDIR/b.h5" --encoding jpeg
    same_labels "$BATS_TEST_TMPDIR/b.h5"
}

@test "WebDataset's shards: an image and a class a key, over several tars" {
    cd "$BATS_FILE_TMPDIR"
    quest-data import-tar web-0.tar web-1.tar --out "$BATS_TEST_TMPDIR/web.h5" --encoding jpeg
    quest-data info --json "$BATS_TEST_TMPDIR/web.h5" >"$BATS_TEST_TMPDIR/web.json"
    [ "$(json "$BATS_TEST_TMPDIR/web.json" "(d['images'], d['classes'], [c['images'] for c in d['class_list']])")" = "(12, 3, [4, 4, 4])" ]
    printf '%s\n' x y z >"$BATS_TEST_TMPDIR/names.txt"
    quest-data import-tar web-0.tar web-1.tar --out "$BATS_TEST_TMPDIR/named.h5" --encoding jpeg --classes "$BATS_TEST_TMPDIR/names.txt"
    [ "$(quest-data info --json "$BATS_TEST_TMPDIR/named.h5" | /usr/bin/python3 -c 'import json,sys; print([c["name"] for c in json.load(sys.stdin)["class_list"]])')" = "['x', 'y', 'z']" ]
    cd "$BATS_TEST_TMPDIR"
    printf '%s\n' x y >names.txt
    refused "web-0.tar: '[0-9]*.cls' holds 2, but names.txt lists 2 classes" "$BATS_FILE_TMPDIR/web-0.tar" --classes names.txt
    tar_of odd.tar 'add("a.jpg", image(0)); add("a.cls", b"0"); add("b.jpg", image(1)); add("c.cls", b"1"); add("d.txt", b"?")
add("e.jpg", type=tarfile.SYMTYPE, linkname="a.jpg"); add("e.cls", b"1"); add("f.cls", b"1\n"); add("f.jpg", image(2)); add("g.jpg", b"no"); add("g.cls", b"1")'
    run quest-data import-tar odd.tar --out odd.h5 --encoding jpeg
    one_error 1 'odd.tar: 4 files could not be imported \(named above\); odd.h5 holds the other 2 images'
    for line in 'odd.tar: b.jpg: has no .cls beside it' 'c: has no image beside it' 'odd.tar: e.jpg: is a link to another file' 'odd.tar: g.jpg: '; do
        grep -qF "skipped: $line" <<<"$output"
    done
    tar_of twice.tar 'add("a.jpg", image(0)); add("a.cls", b"0"); add("b.jpg", image(1)); add("b.cls", b"1"); add("a.jpg", image(2))'
    refused "twice.tar: 'a' is in it twice" twice.tar
    tar_of two.tar 'add("a.jpg", image(0)); add("a.png", image(0)); add("a.cls", b"0")'
    refused "two.tar: 'a.png' is a second image of its key" two.tar
    for class in '-1' 'dog' '12345678901' '' '1 2'; do
        tar_of bad.tar "add('a.jpg', image(0)); add('a.cls', b'$class')"
        refused "bad.tar: 'a.cls' does not hold the number of a class" bad.tar
    done
}

@test "lists that do not fit: one line, and no file" {
    printf '%s\n' n01 n02 >short.txt
    refused "train.tar: holds class 'n03', which short.txt does not list" "$BATS_FILE_TMPDIR/train.tar" --classes short.txt
    printf '%s\n' n01 n02 n03 n04 >long.txt
    refused "long.txt:4: lists class 'n04', of which .*train.tar holds no tar" "$BATS_FILE_TMPDIR/train.tar" --classes long.txt
    printf '%s\n' n01 n02 n03 n01 >twice.txt
    refused "twice.txt: 'n01' is there twice" "$BATS_FILE_TMPDIR/train.tar" --classes twice.txt
    printf 'n01\n\nn02\n' >gap.txt
    refused 'gap.txt:2: the line is empty' "$BATS_FILE_TMPDIR/train.tar" --classes gap.txt
    : >empty.txt
    refused 'empty.txt: is empty' "$BATS_FILE_TMPDIR/train.tar" --classes empty.txt
    refused 'nothing.txt: No such file' "$BATS_FILE_TMPDIR/train.tar" --classes nothing.txt
    refused 'null: is empty' "$BATS_FILE_TMPDIR/train.tar" --classes /dev/null
    sed 1d "$BATS_FILE_TMPDIR/val_wnids.txt" >less.txt
    refused 'val.tar: holds more than the 8 members that are expected' "$BATS_FILE_TMPDIR/val.tar" --labels less.txt
    { cat "$BATS_FILE_TMPDIR/val_wnids.txt" && echo n01; } >more.txt
    refused 'more.txt: has 10 labels, but there are 9 images in .*val.tar' "$BATS_FILE_TMPDIR/val.tar" --labels more.txt
    refused "val_numbers.txt:1: label [0-9] is a number; --classes FILE says which class that is" \
        "$BATS_FILE_TMPDIR/val.tar" --labels "$BATS_FILE_TMPDIR/val_numbers.txt"
    printf '%s\n' n01 n02 >two.txt
    refused "val_numbers.txt:[0-9]*: label 3 is not one of 1 to 2, the lines of two.txt" \
        "$BATS_FILE_TMPDIR/val.tar" --labels "$BATS_FILE_TMPDIR/val_numbers.txt" --classes two.txt
    refused "val_wnids.txt:[0-9]*: label 'n03' is not listed in two.txt" \
        "$BATS_FILE_TMPDIR/val.tar" --labels "$BATS_FILE_TMPDIR/val_wnids.txt" --classes two.txt
    refused 'train.tar: is given twice' "$BATS_FILE_TMPDIR/train.tar" "$BATS_FILE_TMPDIR/./train.tar"
    run ranks 2 quest-data import-tar "$BATS_FILE_TMPDIR/train.tar" --out raw.h5 --encoding jpeg
    [ "$status" = 2 ]
    [[ $output == *"tars are read by one process: use its --workers, or do without mpirun"* ]]
    run quest-data import-tar "$BATS_FILE_TMPDIR/train.tar" --out raw.h5
    one_error 2 'size S is needed'
}

@test "a tar that is cut short, wherever, is an error and leaves no file" {
    for tar in train web-0; do
        size=$(stat -c %s "$BATS_FILE_TMPDIR/$tar.tar")
        for cut in 0 1 511 512 700 1024 1536 $((size / 3)) $((size / 2 / 512 * 512)) $((size - 12000)) $((size - 10240)); do
            head -c "$cut" "$BATS_FILE_TMPDIR/$tar.tar" >cut.tar
            refused 'cut.tar: ' cut.tar
        done
    done
    # the outer one is whole, one in it is not
    /usr/bin/python3 -c '
import sys, tarfile
data = open(sys.argv[1], "rb").read()
names = [member for member in tarfile.open(sys.argv[1])]
inner = names[1]
block = data[inner.offset_data:inner.offset_data + inner.size]
for name, part in (("middle", block[:len(block) // 2]), ("between", block[:tarfile.open(fileobj=__import__("io").BytesIO(block)).getmembers()[1].offset])):
    with tarfile.open(f"{name}.tar", "w") as t:
        for member in names:
            content = part if member is inner else data[member.offset_data:member.offset_data + member.size]
            info = tarfile.TarInfo(member.name); info.size = len(content)
            t.addfile(info, __import__("io").BytesIO(content))' "$BATS_FILE_TMPDIR/train.tar"
    refused 'middle.tar: n0[0-9].tar: (is damaged or cut short|has no end mark)' middle.tar
    refused 'between.tar: n0[0-9].tar: has no end mark' between.tar
}

@test "a bit that is wrong in a header is noticed" {
    cp "$BATS_FILE_TMPDIR/web-0.tar" bad.tar
    printf x | dd of=bad.tar bs=1 seek=130 conv=notrunc status=none
    refused 'bad.tar: is damaged or cut short after member 0' bad.tar
}

@test "tars that mean harm: one line each, and no file" {
    for name in /etc/passwd.jpg ../up.jpg a/../../up.jpg ..; do
        tar_of bad.tar "add('$name', image(0)); add('a.cls', b'0')"
        refused "bad.tar: the name of member '$name' leads out of the folder" bad.tar
    done
    tar_of bad.tar 'add("x" * 10240 + ".jpg", image(0)); add("a.cls", b"0")'
    refused 'bad.tar: member 1 has a name of 10244 bytes; at most 1024 are expected' bad.tar
    for type in FIFOTYPE CHRTYPE BLKTYPE; do
        tar_of bad.tar "add('a.jpg', type=tarfile.$type); add('a.cls', b'0')"
        refused "bad.tar: member 'a.jpg' is neither a file nor a folder" bad.tar
    done
    tar_of inner.tar 'add("a.jpg", image(0))'
    tar_of links.tar 'add("n01.tar", open("inner.tar", "rb").read()); add("n02.tar", type=tarfile.SYMTYPE, linkname="/etc/passwd")'
    refused "links.tar: 'n02.tar' is a link to another file" links.tar
    tar_of same.tar 'add("n01.tar", open("inner.tar", "rb").read()); add("deeper/n01.tar", open("inner.tar", "rb").read())'
    refused "same.tar: 'n01' is there twice" same.tar
    tar_of mixed.tar 'add("n01.tar", open("inner.tar", "rb").read()); add("README", b"hello")'
    refused "mixed.tar: 'README' is no tar of a class" mixed.tar
    tar_of text.tar 'add("n01.tar", b"no tar at all" * 100)'
    refused 'text.tar: n01.tar: is ' text.tar
    # a size that the header lies about: more than there is, and 8 EiB
    for size in 100000000 9223372036854775807; do
        /usr/bin/python3 -c '
import sys, tarfile
info = tarfile.TarInfo("a.jpg"); info.size = int(sys.argv[1])
open("lie.tar", "wb").write(info.tobuf(tarfile.GNU_FORMAT) + bytes(20480))' $size
        refused 'lie.tar: ' lie.tar
    done
    gzip -k "$BATS_FILE_TMPDIR/web-0.tar" --stdout >web.tar.gz
    refused 'web.tar.gz: is not a tar file \(a compressed one has to be unpacked first\)' web.tar.gz
    mkfifo pipe.tar
    refused 'pipe.tar: is not a regular file' pipe.tar
    refused '/dev/zero: is not a regular file' /dev/zero
    # tars in tars in tars are no images
    tar_of one.tar 'add("a.tar", open("inner.tar", "rb").read())'
    tar_of bomb.tar 'add("n01.tar", open("one.tar", "rb").read())'
    run quest-data import-tar bomb.tar --out refused.h5 --encoding jpeg
    [ "$status" = 2 ]
    grep -q 'skipped: bomb.tar: n01.tar: a.tar: ' <<<"$output"
    grep -q 'error: refused.h5: there is not one image to write' <<<"$output"
    [ ! -e refused.h5 ]
}

@test "a million members take little memory and few lines" {
    /usr/bin/python3 -c '
import tarfile
header = lambda name: tarfile.TarInfo(name).tobuf(tarfile.GNU_FORMAT)
with open("many.tar", "wb") as out:
    for i in range(0, 1000000):
        out.write(header(f"{i:07d}.jpg"))
    out.write(bytes(10240))' & wait $!
    run /usr/bin/time -f '%M kB' quest-data import-tar many.tar --out many.h5 --encoding jpeg
    tail -n 3 <<<"$output"
    grep -q 'error: many.h5: there is not one image to write' <<<"$output"
    [ "$(wc -l <<<"$output")" -lt 200 ]
    [ "$(tail -n 1 <<<"$output" | tr -dc 0-9)" -lt 200000 ]
}

@test "a disk that is full leaves no file of a set" {
    run bash -c "trap '' XFSZ; ulimit -f 8; quest-data import-tar '$BATS_FILE_TMPDIR/train.tar' --out z.h5 --encoding jpeg --shards 3"
    one_error 1 'z-0000[0-2]-of-00003.h5: cannot be written: File too large'
    [ "$(find . -name 'z-*')" = "" ]
}

@test "an import that is stopped leaves nothing under the name" {
    tar_of big.tar 'for i in range(20000): add(f"{i}.jpg", image(i % 12)); add(f"{i}.cls", b"%d" % (i % 2))'
    quest-data import-tar big.tar --out big.h5 --size 200 --workers 1 3>&- &
    process=$!
    sleep 1
    kill -TERM $process
    status=0
    wait $process || status=$?
    [ $status = 1 ]
    [ "$(find . -name 'big.h5*')" = "" ]
}
