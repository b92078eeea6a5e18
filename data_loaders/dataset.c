#include "data_loaders/dataset.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data_loaders/h5_chunks.h"
#include "data_loaders/h5_input.h"

enum { LARGEST_SIDE = 65535 }; /* what JPEG allows too */

/* How a dataset of bytes lies in the file: `pieces` contiguous runs of `piece_bytes` each (the last may be cut). */
struct placement {
    size_t pieces, piece_bytes;
};

static bool dense_storage(const char *path, const char *name, hid_t dataset, hid_t creation, struct error *error)
{
    hid_t type = H5Dget_type(dataset);
    bool bytes =
        type >= 0 && H5Tget_class(type) == H5T_INTEGER && H5Tget_size(type) == 1 && H5Tget_sign(type) == H5T_SGN_NONE;
    if (type >= 0)
        H5Tclose(type);
    if (!bytes)
        return error_input(error, "%s: /%s is not of type uint8", path, name);
    H5D_layout_t layout = H5Pget_layout(creation);
    if (H5Pget_nfilters(creation) != 0 || H5Pget_external_count(creation) != 0 ||
        (layout != H5D_CONTIGUOUS && layout != H5D_CHUNKED))
        return error_input(error,
                           "%s: /%s is compressed or stored so that it cannot be read directly; convert it with: "
                           "h5repack -f NONE -l %s:CONTI IN.h5 OUT.h5",
                           path, name, name);
    return true;
}

/* Runs of bytes that hold whole items (`item_bytes` = the bytes of one index of the first dimension), in order. */
static bool find_placement(const char *path, const char *name, hid_t creation, int rank, const hsize_t *extents,
                           struct placement *placement, struct error *error)
{
    size_t item_bytes = 1;
    for (int i = 1; i < rank; i++)
        item_bytes *= extents[i];
    if (H5Pget_layout(creation) == H5D_CONTIGUOUS) {
        *placement = (struct placement){1, extents[0] * item_bytes};
        return true;
    }
    hsize_t chunk[4] = {0};
    bool whole = H5Pget_chunk(creation, 4, chunk) == rank;
    for (int i = 1; i < rank; i++)
        whole = whole && chunk[i] == extents[i];
    if (!whole || chunk[0] == 0 || chunk[0] > SIZE_MAX / item_bytes)
        return error_input(error,
                           "%s: /%s has chunks that cut images into parts; convert it with: "
                           "h5repack -l %s:CONTI IN.h5 OUT.h5",
                           path, name, name);
    *placement = (struct placement){(extents[0] + chunk[0] - 1) / chunk[0], chunk[0] * item_bytes};
    return true;
}

/* File offset of every run, each checked to lie inside the file. */
static bool find_offsets(const char *path, const char *name, hid_t file, hid_t dataset, bool chunked,
                         size_t items_a_piece, const struct placement *placement, size_t total_bytes,
                         uint64_t file_bytes, uint64_t *offsets, struct error *error)
{
    for (size_t piece = 0; piece < placement->pieces; piece++) {
        uint64_t address = HADDR_UNDEF, stored;
        hsize_t start[4] = {piece * items_a_piece, 0, 0, 0};
        if (!chunked)
            address = H5Dget_offset(dataset);
        else if (!h5_chunks_find(file, dataset, start, &address, &stored))
            address = HADDR_UNDEF;
        size_t used = total_bytes - piece * placement->piece_bytes;
        if (used > placement->piece_bytes)
            used = placement->piece_bytes;
        if (address == HADDR_UNDEF)
            return error_input(error, "%s: /%s[%zu] was never written; the file is incomplete, import it again", path,
                               name, piece * items_a_piece);
        if (address > file_bytes || used > file_bytes - address)
            return error_input(error, "%s: /%s[%zu] lies past the end of the file; it is truncated, copy it again",
                               path, name, piece * items_a_piece);
        offsets[piece] = address;
    }
    return true;
}

/* Offsets of the runs of a whole dataset of bytes. Caller frees *offsets. */
static bool locate(const char *path, const char *name, hid_t file, hid_t dataset, int rank, const hsize_t *extents,
                   uint64_t file_bytes, struct placement *placement, uint64_t **offsets, struct error *error)
{
    size_t total_bytes = 1;
    for (int i = 0; i < rank; i++) {
        /* Nothing is compressed, so what the header promises must be there: this also bounds all memory taken. */
        if (extents[i] == 0 || extents[i] > file_bytes / total_bytes)
            return error_input(error, "%s: /%s is empty or larger than the file; it is truncated, copy it again", path,
                               name);
        total_bytes *= extents[i];
    }
    hid_t creation = H5Dget_create_plist(dataset);
    bool ok = creation >= 0 && dense_storage(path, name, dataset, creation, error) &&
              find_placement(path, name, creation, rank, extents, placement, error);
    bool chunked = ok && H5Pget_layout(creation) == H5D_CHUNKED;
    if (creation >= 0)
        H5Pclose(creation);
    else
        error_input(error, "%s: /%s cannot be read; the file is damaged", path, name);
    if (!ok)
        return false;
    *offsets = malloc(placement->pieces * sizeof **offsets);
    if (!*offsets)
        return error_runtime(error, "%s: no memory for the places of %zu chunks", path, placement->pieces);
    size_t item_bytes = total_bytes / extents[0];
    ok = find_offsets(path, name, file, dataset, chunked, placement->piece_bytes / item_bytes, placement, total_bytes,
                      file_bytes, *offsets, error);
    if (!ok) {
        free(*offsets);
        *offsets = NULL;
    }
    return ok;
}

static bool open_raw(struct dataset *dataset, const struct h5_input *input, uint64_t file_bytes, struct error *error)
{
    hid_t images;
    hsize_t extents[4];
    if (!h5_input_dataset(input, "images", 4, extents, &images, error))
        return false;
    uint64_t *pieces = NULL;
    struct placement placement;
    bool ok = locate(input->path, "images", input->file, images, 4, extents, file_bytes, &placement, &pieces, error);
    H5Dclose(images);
    if (!ok)
        return false;
    if (extents[1] > LARGEST_SIDE || extents[2] > LARGEST_SIDE || extents[3] != dataset->channels) {
        free(pieces);
        return error_input(error, "%s: /images has shape [%llu, %llu, %llu, %llu], but mean has %zu channels",
                           input->path, (unsigned long long)extents[0], (unsigned long long)extents[1],
                           (unsigned long long)extents[2], (unsigned long long)extents[3], dataset->channels);
    }
    dataset->encoding = ENCODING_RAW;
    dataset->images = extents[0];
    dataset->height = extents[1];
    dataset->width = extents[2];
    size_t image_bytes = dataset->height * dataset->width * dataset->channels;
    size_t images_a_piece = placement.piece_bytes / image_bytes;
    dataset->offsets = malloc(dataset->images * sizeof *dataset->offsets);
    for (size_t i = 0; dataset->offsets && i < dataset->images; i++)
        dataset->offsets[i] = pieces[i / images_a_piece] + (i % images_a_piece) * image_bytes;
    free(pieces);
    return dataset->offsets || error_runtime(error, "%s: no memory for %zu offsets", input->path, dataset->images);
}

static bool check_stream_offsets(const struct dataset *dataset, uint64_t total_bytes, struct error *error)
{
    for (size_t i = 0; i < dataset->images; i++)
        if (dataset->offsets[i] > dataset->offsets[i + 1])
            return error_input(error,
                               "%s: /jpeg/offsets[%zu] = %" PRIu64 " goes back to %" PRIu64
                               "; the file is damaged, import it again",
                               dataset->path, i, dataset->offsets[i], dataset->offsets[i + 1]);
    if (dataset->offsets[dataset->images] > total_bytes)
        return error_input(error,
                           "%s: /jpeg/offsets ends at %" PRIu64 ", but /jpeg/bytes holds %" PRIu64
                           " bytes; the file is damaged, import it again",
                           dataset->path, dataset->offsets[dataset->images], total_bytes);
    return true;
}

static bool open_jpeg(struct dataset *dataset, const struct h5_input *input, uint64_t file_bytes, struct error *error)
{
    hid_t bytes, offsets;
    hsize_t total_bytes, offset_count;
    if (!h5_input_dataset(input, "jpeg/bytes", 1, &total_bytes, &bytes, error))
        return false;
    struct placement placement;
    bool ok = locate(input->path, "jpeg/bytes", input->file, bytes, 1, &total_bytes, file_bytes, &placement,
                     &dataset->chunks, error);
    H5Dclose(bytes);
    if (!ok || !h5_input_dataset(input, "jpeg/offsets", 1, &offset_count, &offsets, error))
        return false;
    dataset->encoding = ENCODING_JPEG;
    dataset->chunk_bytes = placement.piece_bytes;
    if (offset_count < 2 || offset_count - 1 > total_bytes) { /* a stream has at least one byte */
        H5Dclose(offsets);
        return error_input(error, "%s: /jpeg/offsets has %llu entries for %llu bytes; no images, or damaged",
                           input->path, (unsigned long long)offset_count, (unsigned long long)total_bytes);
    }
    dataset->images = offset_count - 1;
    dataset->offsets = malloc(offset_count * sizeof *dataset->offsets);
    if (!dataset->offsets)
        error_runtime(error, "%s: no memory for %zu offsets", input->path, dataset->images);
    ok = dataset->offsets && h5_input_read(input, offsets, "jpeg/offsets", H5T_NATIVE_UINT64, dataset->offsets, error);
    H5Dclose(offsets);
    return ok && check_stream_offsets(dataset, total_bytes, error);
}

static bool read_header(struct dataset *dataset, const struct h5_input *input, struct error *error)
{
    char format[32];
    int64_t version, classes;
    if (!h5_input_string(input, "format", format, sizeof format, error))
        return false;
    if (strcmp(format, "quest-images") != 0)
        return error_input(error, "%s: format is '%s', not 'quest-images'; this is not a dataset", input->path, format);
    if (!h5_input_integer(input, "version", &version, error))
        return false;
    if (version != 1)
        return error_input(error, "%s: version %" PRId64 " of the dataset format is not known (this program reads 1)",
                           input->path, version);
    if (!h5_input_integer(input, "classes", &classes, error))
        return false;
    if (classes < 1 || classes > 10000000)
        return error_input(error, "%s: classes = %" PRId64 " is not a number of classes", input->path, classes);
    dataset->classes = (size_t)classes;
    size_t std_channels;
    if (!h5_input_floats(input, "mean", dataset->mean, 4, &dataset->channels, error) ||
        !h5_input_floats(input, "std", dataset->std, 4, &std_channels, error))
        return false;
    if ((dataset->channels != 1 && dataset->channels != 3) || std_channels != dataset->channels)
        return error_input(error, "%s: mean has %zu and std %zu channels; 1 or 3 of both are expected", input->path,
                           dataset->channels, std_channels);
    for (size_t c = 0; c < dataset->channels; c++) {
        if (!isfinite(dataset->mean[c]) || dataset->mean[c] < 0 || dataset->mean[c] > 1)
            return error_input(error, "%s: mean[%zu] = %g is not in 0..1; import the file again", input->path, c,
                               (double)dataset->mean[c]);
        if (!isfinite(dataset->std[c]) || dataset->std[c] <= 0 || dataset->std[c] > 1)
            return error_input(error, "%s: std[%zu] = %g is not positive and at most 1; import the file again",
                               input->path, c, (double)dataset->std[c]);
    }
    return true;
}

static bool read_labels(struct dataset *dataset, const struct h5_input *input, struct error *error)
{
    hid_t labels;
    hsize_t count;
    if (!h5_input_dataset(input, "labels", 1, &count, &labels, error))
        return false;
    if (count != dataset->images) {
        H5Dclose(labels);
        return error_input(error, "%s: there are %zu images, but %llu labels; the file is damaged, import it again",
                           input->path, dataset->images, (unsigned long long)count);
    }
    dataset->labels = malloc(dataset->images * sizeof *dataset->labels);
    if (!dataset->labels)
        error_runtime(error, "%s: no memory for %zu labels", input->path, dataset->images);
    bool ok = dataset->labels && h5_input_read(input, labels, "labels", H5T_NATIVE_INT32, dataset->labels, error);
    H5Dclose(labels);
    for (size_t i = 0; ok && i < dataset->images; i++)
        if (dataset->labels[i] < 0 || (size_t)dataset->labels[i] >= dataset->classes)
            ok = error_input(error,
                             "%s: /labels[%zu] = %d, but the file declares %zu classes; the file is damaged, import "
                             "it again",
                             input->path, i, dataset->labels[i], dataset->classes);
    return ok;
}

static bool read_all(struct dataset *dataset, const struct h5_input *input, uint64_t file_bytes, struct error *error)
{
    if (!read_header(dataset, input, error))
        return false;
    bool raw = h5_input_has(input, "images"), jpeg = h5_input_has(input, "jpeg/bytes");
    if (raw == jpeg)
        return error_input(error, "%s: holds %s of /images and /jpeg/bytes; exactly one is expected", input->path,
                           raw ? "both" : "none");
    if (!(raw ? open_raw : open_jpeg)(dataset, input, file_bytes, error) || !read_labels(dataset, input, error))
        return false;
    return !h5_input_has(input, "class_names") ||
           h5_input_strings(input, "class_names", dataset->classes, &dataset->class_names, error);
}

bool dataset_open(struct dataset *dataset, const char *path, struct error *error)
{
    *dataset = (struct dataset){.file = -1};
    if (strlen(path) >= sizeof dataset->path)
        return error_input(error, "%s: the path is longer than %zu bytes", path, sizeof dataset->path - 1);
    snprintf(dataset->path, sizeof dataset->path, "%s", path);
    struct h5_input input;
    if (!h5_input_open(&input, dataset->path, error))
        return false;
    struct stat status;
    dataset->file = open(path, O_RDONLY | O_CLOEXEC);
    bool ok = (dataset->file >= 0 && fstat(dataset->file, &status) == 0) ||
              error_input(error, "%s: %s", path, strerror(errno));
    ok = ok && read_all(dataset, &input, (uint64_t)status.st_size, error);
    h5_input_close(&input);
    if (!ok)
        dataset_close(dataset);
    return ok;
}

void dataset_close(struct dataset *dataset)
{
    if (dataset->file >= 0)
        close(dataset->file);
    for (size_t i = 0; dataset->class_names && i < dataset->classes; i++)
        free(dataset->class_names[i]);
    free(dataset->class_names);
    free(dataset->labels);
    free(dataset->offsets);
    free(dataset->chunks);
    *dataset = (struct dataset){.file = -1};
}

size_t dataset_stored_bytes(const struct dataset *dataset, size_t image)
{
    return dataset->encoding == ENCODING_RAW ? dataset->height * dataset->width * dataset->channels
                                             : dataset->offsets[image + 1] - dataset->offsets[image];
}

static bool read_at(const struct dataset *dataset, size_t image, uint8_t *bytes, size_t count, uint64_t offset,
                    struct error *error)
{
    while (count > 0) {
        ssize_t got = pread(dataset->file, bytes, count, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return error_runtime(error, "%s: image %zu cannot be read: %s", dataset->path, image,
                                 got < 0 ? strerror(errno) : "the file has become shorter");
        bytes += got;
        offset += (uint64_t)got;
        count -= (size_t)got;
    }
    return true;
}

bool dataset_read(const struct dataset *dataset, size_t image, uint8_t *bytes, struct error *error)
{
    size_t count = dataset_stored_bytes(dataset, image);
    if (dataset->encoding == ENCODING_RAW)
        return read_at(dataset, image, bytes, count, dataset->offsets[image], error);
    uint64_t start = dataset->offsets[image];
    while (count > 0) {
        size_t inside = start % dataset->chunk_bytes, part = dataset->chunk_bytes - inside;
        if (part > count)
            part = count;
        if (!read_at(dataset, image, bytes, part, dataset->chunks[start / dataset->chunk_bytes] + inside, error))
            return false;
        bytes += part;
        start += part;
        count -= part;
    }
    return true;
}
