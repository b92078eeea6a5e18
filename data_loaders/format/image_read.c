/* Reads and decodes one image, of a JPEG stream only the part and the scale that the caller's view needs. */
#include "data_loaders/format/image_read.h"

#include <math.h>
#include <stdlib.h>

#include "data_loaders/image/jpeg_stream.h"

/* A hostile header can promise 65535 x 65535 pixels in a few bytes; photographs have under 2^28. */
static const uint64_t LARGEST_PIXELS = UINT64_C(1) << 28;

/* libjpeg-turbo writes rows that begin at a multiple of 32 bytes past the caches (vmovntdq), and reading them back from
 * memory takes a seventh of the time of a sample. Rows of a usual size all begin there, unless the first does not. */
enum { OFF_ALIGNMENT = 16 };

struct image_reader {
    const struct dataset *dataset;
    struct jpeg_stream *stream; /* NULL for raw datasets */
    size_t image, channels;
    uint8_t *stored, *decoded;
    size_t stored_bytes, stored_capacity, decoded_capacity;
    size_t height, width; /* of the loaded JPEG stream */
};

bool image_reader_open(struct image_reader **reader, const struct dataset *dataset, struct error *error)
{
    struct image_reader *opened = calloc(1, sizeof *opened);
    if (!opened)
        return error_runtime(error, "no memory for an image reader");
    opened->dataset = dataset;
    opened->channels = dataset->channels;
    opened->stream = dataset->encoding == ENCODING_JPEG ? jpeg_stream_open() : NULL;
    if (dataset->encoding == ENCODING_JPEG && !opened->stream) {
        free(opened);
        return error_runtime(error, "no memory for an image reader");
    }
    *reader = opened;
    return true;
}

void image_reader_close(struct image_reader *reader)
{
    if (!reader)
        return;
    jpeg_stream_close(reader->stream);
    free(reader->stored);
    free(reader->decoded);
    free(reader);
}

static bool grow(uint8_t **memory, size_t *capacity, size_t bytes, struct error *error)
{
    if (bytes <= *capacity)
        return true;
    free(*memory);
    *memory = aligned_alloc(64, (bytes + 63) / 64 * 64);
    *capacity = *memory ? bytes : 0;
    return *memory || error_runtime(error, "no memory for an image of %zu bytes", bytes);
}

static bool damaged(const struct image_reader *reader, struct error *error)
{
    size_t inside;
    const struct dataset *file = dataset_file_of(reader->dataset, reader->image, &inside);
    return error_input(error, "%s: image %zu is a damaged JPEG stream: %s", file->path, inside,
                       jpeg_stream_complaint(reader->stream));
}

/* A stream that is whole, but of no use. */
static bool check_stream(const struct image_reader *reader, size_t height, size_t width, struct error *error)
{
    size_t inside;
    const struct dataset *file = dataset_file_of(reader->dataset, reader->image, &inside);
    if (jpeg_stream_is_cmyk(reader->stream))
        return error_input(error, "%s: image %zu is a CMYK JPEG stream; import the file with quest-data", file->path,
                           inside);
    return (uint64_t)height * (uint64_t)width <= LARGEST_PIXELS ||
           error_input(error, "%s: image %zu is damaged: its header says %zu x %zu pixels", file->path, inside, width,
                       height);
}

bool image_load(struct image_reader *reader, size_t image, size_t *height, size_t *width, struct error *error)
{
    const struct dataset *dataset = reader->dataset;
    reader->image = image;
    reader->stored_bytes = dataset_stored_bytes(dataset, image);
    if (!grow(&reader->stored, &reader->stored_capacity, reader->stored_bytes + PIXELS_SLACK_BYTES, error) ||
        !dataset_read(dataset, image, reader->stored, error))
        return false;
    *height = dataset->height;
    *width = dataset->width;
    if (dataset->encoding == ENCODING_RAW)
        return true;
    if (!jpeg_stream_begin(reader->stream, reader->stored, reader->stored_bytes, height, width))
        return damaged(reader, error);
    if (!check_stream(reader, *height, *width, error))
        return false;
    reader->height = *height;
    reader->width = *width;
    return true;
}

/* The smallest scale that leaves the part at least `size` pixels, of those whose transforms libjpeg-turbo has in vector
 * code: 7/8 would take twice as long as no scaling at all. */
static size_t choose_denominator(const struct image_reader *reader, const struct rectangle *part, size_t size)
{
    double least_height = ceil((double)reader->height * (double)size / part->height);
    double least_width = ceil((double)reader->width * (double)size / part->width);
    size_t denominator = 1;
    while (size > 0 && denominator < 8 && (double)jpeg_stream_scaled(reader->height, 2 * denominator) >= least_height &&
           (double)jpeg_stream_scaled(reader->width, 2 * denominator) >= least_width)
        denominator *= 2;
    return denominator;
}

/* One axis of what must be decoded so that [start, start + length) of `full` pixels can be resized to `size`: the
 * resampler's filter reaches as far as a step beyond. */
static void widen(size_t *first, size_t *count, double start, double length, size_t size, size_t full, size_t scaled)
{
    double scale = (double)scaled / (double)full, step = size > 0 ? length * scale / (double)size : 0;
    double reach = ceil(step > 1 ? step : 1) + 1;
    double from = floor(start * scale - reach), to = ceil((start + length) * scale + reach);
    *first = from > 0 ? (size_t)from : 0;
    *count = (to < (double)scaled ? (size_t)to : scaled) - *first;
}

bool image_decode(struct image_reader *reader, const struct rectangle *part, size_t size, struct pixels *pixels,
                  struct error *error)
{
    const struct dataset *dataset = reader->dataset;
    if (dataset->encoding == ENCODING_RAW) {
        *pixels = (struct pixels){reader->stored, dataset->height, dataset->width, dataset->channels,
                                  dataset->width * dataset->channels};
        return true;
    }
    size_t denominator = part ? choose_denominator(reader, part, size) : 1;
    size_t height = jpeg_stream_scaled(reader->height, denominator);
    size_t width = jpeg_stream_scaled(reader->width, denominator), stride = width * reader->channels;
    struct jpeg_window window = {0, 0, height, width};
    if (part) {
        widen(&window.top, &window.height, part->top, part->height, size, reader->height, height);
        widen(&window.left, &window.width, part->left, part->width, size, reader->width, width);
    }
    if (!grow(&reader->decoded, &reader->decoded_capacity, OFF_ALIGNMENT + height * stride + PIXELS_SLACK_BYTES, error))
        return false;
    uint8_t *first = reader->decoded + OFF_ALIGNMENT;
    if (!jpeg_stream_decode(reader->stream, first, denominator, reader->channels, &window))
        return damaged(reader, error);
    *pixels = (struct pixels){first, height, width, reader->channels, stride};
    return true;
}
