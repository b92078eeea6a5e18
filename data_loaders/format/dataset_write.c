/* Writes a dataset file block by block under a temporary name, and makes mean and std from sums over pixels. */
#include "data_loaders/format/dataset_write.h"

#include <errno.h>
#include <fcntl.h>
#include <hdf5.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    GROWTH = 4096,            /* images by which /images and the lists grow at a time */
    STREAM_CHUNK = 256 * 1024 /* chunk of /jpeg/bytes: small beside a dataset, large beside a stream */
};

struct dataset_writer {
    struct dataset_layout layout;
    char path[PATH_MAX], temporary[PATH_MAX + 32];
    hid_t file, bytes; /* /images or /jpeg/bytes */
    H5E_auto2_t error_printer;
    void *error_printer_data;
    size_t images, capacity;
    int32_t *labels;   /* [capacity] */
    uint64_t *offsets; /* [capacity + 1]; jpeg only */
    struct pixel_sums sums;
    uint8_t *block; /* jpeg: the chunk that is being filled */
    size_t block_used, blocks;
};

/* ---- writing ---- */

static bool write_failed(struct dataset_writer *writer, struct error *error)
{
    int reason = errno;
    bool known = reason == ENOSPC || reason == EDQUOT || reason == EFBIG || reason == EIO || reason == EROFS;
    return error_runtime(error, "%s: cannot be written%s%s; no file is left behind", writer->path, known ? ": " : "",
                         known ? strerror(reason) : "");
}

/* No times in the file: the same images give the same bytes. */
static hid_t creation_properties(void)
{
    hid_t list = H5Pcreate(H5P_DATASET_CREATE);
    if (list >= 0 && H5Pset_obj_track_times(list, false) >= 0)
        return list;
    H5Pclose(list);
    return H5I_INVALID_HID;
}

static hid_t create_bytes(const struct dataset_writer *writer)
{
    const struct dataset_layout *layout = &writer->layout;
    bool raw = layout->encoding == ENCODING_RAW;
    hsize_t none[4] = {0, layout->height, layout->width, layout->channels};
    hsize_t most[4] = {H5S_UNLIMITED, layout->height, layout->width, layout->channels};
    hsize_t chunk[4] = {raw ? 1 : STREAM_CHUNK, layout->height, layout->width, layout->channels};
    int rank = raw ? 4 : 1;
    hid_t space = H5Screate_simple(rank, none, most), creation = creation_properties();
    hid_t links = H5Pcreate(H5P_LINK_CREATE), dataset = H5I_INVALID_HID;
    if (space >= 0 && creation >= 0 && links >= 0 && H5Pset_chunk(creation, rank, chunk) >= 0 &&
        H5Pset_fill_time(creation, H5D_FILL_TIME_NEVER) >= 0 && H5Pset_create_intermediate_group(links, 1) >= 0)
        dataset =
            H5Dcreate2(writer->file, raw ? "images" : "jpeg/bytes", H5T_STD_U8LE, space, links, creation, H5P_DEFAULT);
    H5Pclose(links);
    H5Pclose(creation);
    H5Sclose(space);
    return dataset;
}

bool dataset_writer_open(struct dataset_writer **writer, const char *path, const struct dataset_layout *layout,
                         bool force, struct error *error)
{
    if (strlen(path) >= PATH_MAX)
        return error_input(error, "%s: the path is longer than %d bytes", path, PATH_MAX - 1);
    if (!force && access(path, F_OK) == 0)
        return error_input(error, "%s: exists already (--force replaces it)", path);
    struct dataset_writer *opened = calloc(1, sizeof *opened);
    if (!opened)
        return error_runtime(error, "%s: no memory for a writer", path);
    opened->layout = *layout;
    opened->file = opened->bytes = H5I_INVALID_HID;
    snprintf(opened->path, sizeof opened->path, "%s", path);
    snprintf(opened->temporary, sizeof opened->temporary, "%s.tmp-%ld", path, (long)getpid());
    H5Eget_auto2(H5E_DEFAULT, &opened->error_printer, &opened->error_printer_data);
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    errno = 0;
    opened->file = H5Fcreate(opened->temporary, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    if (opened->file < 0) {
        error_input(error, "%s: cannot be created: %s", path, errno ? strerror(errno) : "HDF5 refused");
        dataset_writer_discard(opened);
        return false;
    }
    opened->bytes = create_bytes(opened);
    opened->block = layout->encoding == ENCODING_JPEG ? malloc(STREAM_CHUNK) : NULL;
    if (opened->bytes < 0 || (layout->encoding == ENCODING_JPEG && !opened->block)) {
        write_failed(opened, error);
        dataset_writer_discard(opened);
        return false;
    }
    *writer = opened;
    return true;
}

static bool reserve(struct dataset_writer *writer, struct error *error)
{
    if (writer->images < writer->capacity)
        return true;
    size_t capacity = writer->capacity + GROWTH;
    int32_t *labels = realloc(writer->labels, capacity * sizeof *labels);
    if (labels)
        writer->labels = labels;
    uint64_t *offsets = realloc(writer->offsets, (capacity + 1) * sizeof *offsets);
    if (offsets)
        writer->offsets = offsets;
    if (!labels || !offsets)
        return error_runtime(error, "%s: no memory for %zu labels", writer->path, capacity);
    writer->capacity = capacity;
    const struct dataset_layout *layout = &writer->layout;
    hsize_t extents[4] = {capacity, layout->height, layout->width, layout->channels};
    if (layout->encoding == ENCODING_RAW && H5Dset_extent(writer->bytes, extents) < 0)
        return write_failed(writer, error);
    return true;
}

static bool write_block(struct dataset_writer *writer, struct error *error)
{
    hsize_t extent = (writer->blocks + 1) * STREAM_CHUNK, start = writer->blocks * STREAM_CHUNK;
    memset(writer->block + writer->block_used, 0, STREAM_CHUNK - writer->block_used);
    if (H5Dset_extent(writer->bytes, &extent) < 0 ||
        H5Dwrite_chunk(writer->bytes, H5P_DEFAULT, 0, &start, STREAM_CHUNK, writer->block) < 0)
        return write_failed(writer, error);
    writer->blocks++;
    writer->block_used = 0;
    return true;
}

static bool append_stream(struct dataset_writer *writer, const uint8_t *bytes, size_t count, struct error *error)
{
    while (count > 0) {
        size_t part = STREAM_CHUNK - writer->block_used;
        if (part > count)
            part = count;
        memcpy(writer->block + writer->block_used, bytes, part);
        writer->block_used += part;
        bytes += part;
        count -= part;
        if (writer->block_used == STREAM_CHUNK && !write_block(writer, error))
            return false;
    }
    return true;
}

bool dataset_writer_append(struct dataset_writer *writer, const uint8_t *bytes, size_t byte_count, int32_t label,
                           const struct pixel_sums *sums, struct error *error)
{
    errno = 0;
    if (!reserve(writer, error))
        return false;
    hsize_t start[4] = {writer->images, 0, 0, 0};
    writer->offsets[writer->images] = writer->blocks * STREAM_CHUNK + writer->block_used;
    if (writer->layout.encoding == ENCODING_RAW) {
        if (H5Dwrite_chunk(writer->bytes, H5P_DEFAULT, 0, start, byte_count, bytes) < 0)
            return write_failed(writer, error);
    } else if (!append_stream(writer, bytes, byte_count, error)) {
        return false;
    }
    writer->labels[writer->images++] = label;
    pixel_sums_merge(&writer->sums, sums);
    return true;
}

void dataset_writer_set_classes(struct dataset_writer *writer, size_t classes)
{
    writer->layout.classes = classes;
}

size_t dataset_writer_images(const struct dataset_writer *writer)
{
    return writer->images;
}

/* ---- finishing ---- */

static bool write_dataset(hid_t file, const char *name, hid_t file_type, hid_t memory_type, hsize_t count,
                          const void *values)
{
    hid_t space = H5Screate_simple(1, &count, NULL);
    hid_t creation = creation_properties(), dataset = H5I_INVALID_HID;
    if (space >= 0 && creation >= 0)
        dataset = H5Dcreate2(file, name, file_type, space, H5P_DEFAULT, creation, H5P_DEFAULT);
    bool ok = dataset >= 0 && H5Dwrite(dataset, memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0;
    if (dataset >= 0)
        ok = H5Dclose(dataset) >= 0 && ok;
    H5Pclose(creation);
    H5Sclose(space);
    return ok;
}

/* A root attribute of `count` values; count 0 means a scalar. */
static bool write_attribute(hid_t file, const char *name, hid_t file_type, hid_t memory_type, hsize_t count,
                            const void *values)
{
    hid_t space = count ? H5Screate_simple(1, &count, NULL) : H5Screate(H5S_SCALAR);
    hid_t attribute = H5Acreate2(file, name, file_type, space, H5P_DEFAULT, H5P_DEFAULT);
    bool ok = attribute >= 0 && H5Awrite(attribute, memory_type, values) >= 0;
    if (attribute >= 0)
        ok = H5Aclose(attribute) >= 0 && ok;
    H5Sclose(space);
    return ok;
}

static bool write_header(struct dataset_writer *writer, const float *mean, const float *std)
{
    const struct dataset_layout *layout = &writer->layout;
    const char *format = "quest-images";
    int32_t version = 1, classes = (int32_t)layout->classes;
    hid_t text = H5Tcopy(H5T_C_S1);
    bool ok = text >= 0 && H5Tset_size(text, H5T_VARIABLE) >= 0 && H5Tset_cset(text, H5T_CSET_UTF8) >= 0 &&
              write_attribute(writer->file, "format", text, text, 0, &format) &&
              write_attribute(writer->file, "version", H5T_STD_I32LE, H5T_NATIVE_INT32, 0, &version) &&
              write_attribute(writer->file, "classes", H5T_STD_I32LE, H5T_NATIVE_INT32, 0, &classes) &&
              write_attribute(writer->file, "mean", H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, layout->channels, mean) &&
              write_attribute(writer->file, "std", H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, layout->channels, std) &&
              (!layout->class_names ||
               write_dataset(writer->file, "class_names", text, text, layout->classes, layout->class_names));
    H5Tclose(text);
    return ok;
}

/* What dataset_set.c looks for; a file by itself has none of it. */
static bool write_shard(struct dataset_writer *writer)
{
    const struct dataset_layout *layout = &writer->layout;
    const struct pixel_sums *sums = &writer->sums;
    int32_t shard = (int32_t)layout->shard, shards = (int32_t)layout->shards;
    uint64_t left_out = layout->left_out ? *layout->left_out : 0, values[7] = {sums->count};
    memcpy(values + 1, sums->sum, layout->channels * sizeof *values);
    memcpy(values + 1 + layout->channels, sums->sum_of_squares, layout->channels * sizeof *values);
    hid_t text = H5Tcopy(H5T_C_S1);
    bool ok =
        text >= 0 && H5Tset_size(text, H5T_VARIABLE) >= 0 &&
        write_attribute(writer->file, "shard", H5T_STD_I32LE, H5T_NATIVE_INT32, 0, &shard) &&
        write_attribute(writer->file, "shards", H5T_STD_I32LE, H5T_NATIVE_INT32, 0, &shards) &&
        (!layout->import || write_attribute(writer->file, "import", text, text, 0, &layout->import)) &&
        write_attribute(writer->file, "left_out", H5T_STD_U64LE, H5T_NATIVE_UINT64, 0, &left_out) &&
        write_attribute(writer->file, "pixel_sums", H5T_STD_U64LE, H5T_NATIVE_UINT64, 1 + 2 * layout->channels, values);
    H5Tclose(text);
    return ok;
}

static bool write_rest(struct dataset_writer *writer, const float *mean, const float *std, struct error *error)
{
    const struct dataset_layout *layout = &writer->layout;
    bool raw = layout->encoding == ENCODING_RAW;
    hsize_t total = writer->blocks * STREAM_CHUNK + writer->block_used;
    if (!raw && writer->block_used > 0 && !write_block(writer, error))
        return false;
    hsize_t extents[4] = {raw ? writer->images : total, layout->height, layout->width, layout->channels};
    errno = 0;
    bool ok = H5Dset_extent(writer->bytes, extents) >= 0 &&
              write_dataset(writer->file, "labels", H5T_STD_I32LE, H5T_NATIVE_INT32, writer->images, writer->labels);
    if (ok && !raw) {
        writer->offsets[writer->images] = total;
        ok = write_dataset(writer->file, "jpeg/offsets", H5T_STD_U64LE, H5T_NATIVE_UINT64, writer->images + 1,
                           writer->offsets);
    }
    ok = ok && write_header(writer, mean, std) && (layout->shards == 0 || write_shard(writer));
    return ok || write_failed(writer, error);
}

/* Everything in the file system's hands, then on the disk, then under the final name. */
static bool publish(struct dataset_writer *writer, struct error *error)
{
    errno = 0;
    bool closed = H5Dclose(writer->bytes) >= 0;
    writer->bytes = H5I_INVALID_HID;
    closed = H5Fclose(writer->file) >= 0 && closed;
    writer->file = H5I_INVALID_HID;
    int descriptor = closed ? open(writer->temporary, O_RDONLY | O_CLOEXEC) : -1;
    bool flushed = descriptor >= 0 && fsync(descriptor) == 0;
    if (descriptor >= 0)
        close(descriptor);
    return (flushed && rename(writer->temporary, writer->path) == 0) || write_failed(writer, error);
}

bool dataset_writer_finish(struct dataset_writer *writer, struct error *error)
{
    float mean[3], std[3];
    bool ok = writer->images > 0 || error_input(error, "%s: there is not one image to write", writer->path);
    if (ok)
        pixel_sums_moments(&writer->sums, writer->layout.channels, mean, std);
    for (size_t c = 0; ok && c < writer->layout.channels; c++)
        if (std[c] <= 0)
            ok = error_input(error, "%s: channel %zu is the same in all pixels, so nothing can be learned from it",
                             writer->path, c);
    ok = ok && write_rest(writer, mean, std, error) && publish(writer, error);
    dataset_writer_discard(writer); /* after a rename there is no temporary file to remove */
    return ok;
}

void dataset_writer_discard(struct dataset_writer *writer)
{
    if (writer->bytes >= 0)
        H5Dclose(writer->bytes);
    if (writer->file >= 0)
        H5Fclose(writer->file);
    unlink(writer->temporary);
    H5Eset_auto2(H5E_DEFAULT, writer->error_printer, writer->error_printer_data);
    free(writer->labels);
    free(writer->offsets);
    free(writer->block);
    free(writer);
}
