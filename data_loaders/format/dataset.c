/* Opening a file or a set of files, and images by pread(2). */
#include "data_loaders/format/dataset.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "data_loaders/format/dataset_file.h"
#include "data_loaders/format/dataset_set.h"
#include "data_loaders/format/shard_files.h"

bool dataset_open(struct dataset *dataset, const char *path, struct error *error)
{
    bool pattern = strpbrk(path, "*?[") != NULL && access(path, F_OK) != 0;
    return pattern ? dataset_set_open(dataset, path, error) : dataset_file_open(dataset, path, "", error);
}

void dataset_close(struct dataset *dataset)
{
    dataset_set_close(dataset);
}

const struct dataset *dataset_file_of(const struct dataset *dataset, size_t image, size_t *inside)
{
    *inside = image;
    if (!dataset->files)
        return dataset;
    size_t low = 0, high = dataset->file_count;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (dataset->files[middle].first <= image)
            low = middle;
        else
            high = middle;
    }
    *inside = image - dataset->files[low].first;
    return &dataset->files[low];
}

size_t dataset_stored_bytes(const struct dataset *dataset, size_t image)
{
    if (dataset->encoding == ENCODING_RAW)
        return dataset->height * dataset->width * dataset->channels;
    const struct dataset *file = dataset_file_of(dataset, image, &image);
    return file->offsets[image + 1] - file->offsets[image];
}

/* One image of one file, open as `descriptor`. */
struct reading {
    const struct dataset *file;
    int descriptor;
    size_t image;
};

static bool read_at(const struct reading *reading, uint8_t *bytes, size_t count, uint64_t offset, struct error *error)
{
    while (count > 0) {
        ssize_t got = pread(reading->descriptor, bytes, count, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return error_runtime(error, "%s: image %zu cannot be read: %s", reading->file->path, reading->image,
                                 got < 0 ? strerror(errno) : "the file has become shorter");
        bytes += got;
        offset += (uint64_t)got;
        count -= (size_t)got;
    }
    return true;
}

static bool read_image(const struct reading *reading, uint8_t *bytes, struct error *error)
{
    const struct dataset *file = reading->file;
    size_t count = dataset_stored_bytes(file, reading->image);
    uint64_t start = file->offsets[reading->image];
    if (file->encoding == ENCODING_RAW)
        return read_at(reading, bytes, count, start, error);
    while (count > 0) {
        size_t inside = start % file->chunk_bytes, part = file->chunk_bytes - inside;
        if (part > count)
            part = count;
        if (!read_at(reading, bytes, part, file->chunks[start / file->chunk_bytes] + inside, error))
            return false;
        bytes += part;
        start += part;
        count -= part;
    }
    return true;
}

bool dataset_read(const struct dataset *dataset, size_t image, uint8_t *bytes, struct error *error)
{
    struct reading reading;
    reading.file = dataset_file_of(dataset, image, &reading.image);
    reading.descriptor = reading.file->file;
    if (!dataset->files)
        return read_image(&reading, bytes, error);
    size_t number = (size_t)(reading.file - dataset->files);
    if (!shard_files_borrow(dataset->descriptors, number, &reading.descriptor, error))
        return false;
    bool ok = read_image(&reading, bytes, error);
    shard_files_return(dataset->descriptors, number);
    return ok;
}
