# Makes in the current folder what tar.bats imports: images/, folder/{train,val}/<wnid>/, train.tar, val.tar with its lists,
# web-0.tar and web-1.tar.
import io
import os
import tarfile

import numpy
from PIL import Image


def jpeg(index):
    random = numpy.random.default_rng(index)
    small = random.integers(0, 256, (3, 4, 3), dtype=numpy.uint8)
    image = Image.fromarray(small).resize((40 + index, 30 + index), Image.BICUBIC)
    data = io.BytesIO()
    image.save(data, "JPEG", quality=90)
    return data.getvalue()


def add(tar, name, data):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def write(path, data):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(data)


def gnu(target):
    return tarfile.open(target, "w", format=tarfile.GNU_FORMAT)


images = [jpeg(index) for index in range(21)]
for index, data in enumerate(images):
    write(f"images/{index}.jpg", data)

# training: a tar a class; class k has 3 + k images
with gnu("train.tar") as outer:
    index = 0
    for k, wnid in enumerate(("n01", "n02", "n03")):
        inner = io.BytesIO()
        with tarfile.open(fileobj=inner, mode="w", format=tarfile.GNU_FORMAT) as tar:
            for i in range(3 + k):
                add(tar, f"{wnid}_{i}.JPEG", images[index])
                write(f"folder/train/{wnid}/{wnid}_{i}.JPEG", images[index])
                index += 1
        add(outer, f"{wnid}.tar", inner.getvalue())

# validation: nine images, in the tar not in the order of their names; the list is in that of the names
wnids = ["n03", "n01", "n02", "n02", "n01", "n03", "n03", "n02", "n01"]
number = {"n02": 1, "n03": 2, "n01": 3}
order = [4, 0, 8, 2, 6, 1, 3, 7, 5]
with gnu("val.tar") as tar:
    for i in order:
        add(tar, f"ILSVRC2012_val_{i + 1:08d}.JPEG", images[12 + i])
        write(f"folder/val/{wnids[i]}/{i}.JPEG", images[12 + i])
with open("val_wnids.txt", "w") as file:
    file.writelines(f"{wnid}\n" for wnid in wnids)
with open("val_numbers.txt", "w") as file:
    file.writelines(f"{number[wnid]}\n" for wnid in wnids)
with open("val_by_tar.txt", "w") as file:
    file.writelines(f"{wnids[i]}\n" for i in order)

for shard in range(2):
    with gnu(f"web-{shard}.tar") as tar:
        for i in range(6):
            add(tar, f"{i:06d}.cls", str(i % 3).encode())
            add(tar, f"{i:06d}.jpg", images[6 * shard + i])
            add(tar, f"{i:06d}.json", b"{}")
