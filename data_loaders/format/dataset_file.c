/* The dataset file as HDF5 sees it, checked. */
#include "data_loaders/format/dataset_file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data_loaders/format/placement.h"
#include "src/files/h5_input.h"

enum {
    LARGEST_SIDE = 65535, /* what JPEG allows too */
    LARGEST_SET = 1000000
};
static const float MOMENT_ROUNDING = 1e-5F;

static bool open_raw(struct dataset *dataset, const struct h5_input *input, uint64_t file_bytes, struct error *error)
{
    hid_t images;
    hsize_t extents[4];
    if (!h5_input_dataset(input, "images", 4, extents, &images, error))
        return false;
    struct placement placement;
    struct bytes_in_file bytes = {input->path, "images", input->file, images, 4, extents, file_bytes};
    bool ok = placement_find(&placement, &bytes, error);
    H5Dclose(images);
    if (!ok)
        return false;
    if (extents[1] > LARGEST_SIDE || extents[2] > LARGEST_SIDE || extents[3] != dataset->channels) {
        free(placement.offsets);
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
        dataset->offsets[i] = placement.offsets[i / images_a_piece] + (i % images_a_piece) * image_bytes;
    free(placement.offsets);
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
    struct bytes_in_file streams = {input->path, "jpeg/bytes", input->file, bytes, 1, &total_bytes, file_bytes};
    bool ok = placement_find(&placement, &streams, error);
    H5Dclose(bytes);
    dataset->chunks = placement.offsets;
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

/* What a file of a set says of itself, where it does. */
static bool read_shard(struct dataset *dataset, const struct h5_input *input, struct error *error)
{
    int64_t shard, shards;
    if (H5Aexists(input->file, "shards") <= 0)
        return true;
    if (!h5_input_integer(input, "shard", &shard, error) || !h5_input_integer(input, "shards", &shards, error))
        return false;
    if (shards < 1 || shards > LARGEST_SET || shard < 0 || shard >= shards)
        return error_input(error,
                           "%s: says that it is file %" PRId64 " of %" PRId64 ", counted from 0; import it again",
                           input->path, shard, shards);
    dataset->shard = (size_t)shard;
    dataset->shards = (size_t)shards;
    if (H5Aexists(input->file, "import") > 0 &&
        !h5_input_string(input, "import", dataset->import, sizeof dataset->import, error))
        return false;
    int64_t left_out = 0;
    if (H5Aexists(input->file, "left_out") > 0 && !h5_input_integer(input, "left_out", &left_out, error))
        return false;
    dataset->left_out = left_out > 0 ? (size_t)left_out : 0;
    return true;
}

/* The sums that mean and std were made from: the moments of several files together can then be told exactly. */
static bool read_sums(struct dataset *dataset, const struct h5_input *input, struct error *error)
{
    uint64_t values[7];
    size_t count, channels = dataset->channels;
    if (H5Aexists(input->file, "pixel_sums") <= 0)
        return true;
    if (!h5_input_integers(input, "pixel_sums", values, 7, &count, error))
        return false;
    bool fit = count == 1 + 2 * channels && values[0] > 0 && values[0] <= UINT64_MAX / 255 / 255;
    dataset->sums.count = fit ? values[0] : 0;
    for (size_t c = 0; fit && c < channels; c++) {
        dataset->sums.sum[c] = values[1 + c];
        dataset->sums.sum_of_squares[c] = values[1 + channels + c];
        fit = values[1 + c] <= 255 * values[0] && values[1 + channels + c] <= 255 * 255 * values[0];
    }
    float mean[3], std[3];
    if (fit)
        pixel_sums_moments(&dataset->sums, channels, mean, std);
    for (size_t c = 0; fit && c < channels; c++)
        fit = fabsf(mean[c] - dataset->mean[c]) < MOMENT_ROUNDING && fabsf(std[c] - dataset->std[c]) < MOMENT_ROUNDING;
    return fit ||
           error_input(error, "%s: pixel_sums does not give its mean and std; the file is damaged, import it again",
                       input->path);
}

/* Names are left out where the file belongs to an import whose names are known: in a set of thousands of files with
 * thousands of classes each, reading them takes longer than everything else. */
static bool read_all(struct dataset *dataset, const struct h5_input *input, uint64_t file_bytes,
                     const char *known_import, struct error *error)
{
    if (!read_header(dataset, input, error) || !read_shard(dataset, input, error) || !read_sums(dataset, input, error))
        return false;
    bool raw = h5_input_has(input, "images"), jpeg = h5_input_has(input, "jpeg/bytes");
    if (raw == jpeg)
        return error_input(error, "%s: holds %s of /images and /jpeg/bytes; exactly one is expected", input->path,
                           raw ? "both" : "none");
    if (!(raw ? open_raw : open_jpeg)(dataset, input, file_bytes, error) || !read_labels(dataset, input, error))
        return false;
    bool known = known_import[0] && strcmp(known_import, dataset->import) == 0;
    return known || !h5_input_has(input, "class_names") ||
           h5_input_strings(input, "class_names", dataset->classes, &dataset->class_names, error);
}

bool dataset_file_open(struct dataset *dataset, const char *path, const char *known_import, struct error *error)
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
    ok = ok && read_all(dataset, &input, (uint64_t)status.st_size, known_import, error);
    h5_input_close(&input);
    if (!ok)
        dataset_file_close(dataset);
    return ok;
}

void dataset_file_close(struct dataset *dataset)
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
