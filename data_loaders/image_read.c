#include "data_loaders/image_read.h"

#include <stdlib.h>
#include <turbojpeg.h>

/* A hostile header can promise 65535 x 65535 pixels in a few bytes; photographs have under 2^28. */
static const uint64_t LARGEST_PIXELS = UINT64_C(1) << 28;

struct image_reader {
    const struct dataset *dataset;
    tjhandle decoder; /* NULL until there is a stream to decode */
    size_t image, channels;
    uint8_t *stored, *decoded;
    size_t stored_bytes, stored_capacity, decoded_capacity;
    int height, width; /* of the loaded JPEG stream */
};

bool image_reader_open(struct image_reader **reader, const struct dataset *dataset, struct error *error)
{
    struct image_reader *opened = calloc(1, sizeof *opened);
    if (!opened)
        return error_runtime(error, "no memory for an image reader");
    opened->dataset = dataset;
    opened->channels = dataset->channels;
    *reader = opened;
    return true;
}

void image_reader_close(struct image_reader *reader)
{
    if (!reader)
        return;
    if (reader->decoder)
        tjDestroy(reader->decoder);
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

/* libturbojpeg also reports what it could mend (a stream cut short, stray bytes): such an image is damaged for us, or a
 * half-grey picture would pass as a sample. */
static bool damaged(const struct image_reader *reader, struct error *error)
{
    return error_input(error, "%s: image %zu is a damaged JPEG stream: %s", reader->dataset->path, reader->image,
                       tjGetErrorStr2(reader->decoder));
}

/* libturbojpeg 2.1 stays in the middle of a header that it has given up, and then finds the next streams damaged too,
 * or takes them for tables without a picture: it is started anew. */
static bool give_up_header(struct image_reader *reader, struct error *error)
{
    damaged(reader, error);
    tjDestroy(reader->decoder);
    reader->decoder = NULL;
    return false;
}

static bool read_header(struct image_reader *reader, const uint8_t *stream, size_t stream_bytes, struct error *error)
{
    int subsampling, colourspace = TJCS_RGB;
    if (!reader->decoder && !(reader->decoder = tjInitDecompress()))
        return error_runtime(error, "libturbojpeg: %s", tjGetErrorStr2(NULL));
    reader->height = reader->width = 0; /* a stream of tables alone passes as good and sets nothing */
    if (tjDecompressHeader3(reader->decoder, stream, stream_bytes, &reader->width, &reader->height, &subsampling,
                            &colourspace) != 0 ||
        reader->height == 0 || reader->width == 0)
        return give_up_header(reader, error);
    if (colourspace == TJCS_CMYK || colourspace == TJCS_YCCK)
        return error_input(error, "%s: image %zu is a CMYK JPEG stream; import the file with quest-data",
                           reader->dataset->path, reader->image);
    if ((uint64_t)reader->width * (uint64_t)reader->height > LARGEST_PIXELS)
        return error_input(error, "%s: image %zu is damaged: its header says %d x %d pixels", reader->dataset->path,
                           reader->image, reader->width, reader->height);
    return true;
}

bool image_load(struct image_reader *reader, size_t image, size_t *height, size_t *width, struct error *error)
{
    const struct dataset *dataset = reader->dataset;
    reader->image = image;
    reader->stored_bytes = dataset_stored_bytes(dataset, image);
    if (!grow(&reader->stored, &reader->stored_capacity, reader->stored_bytes + PATCHES_SLACK_BYTES, error) ||
        !dataset_read(dataset, image, reader->stored, error))
        return false;
    if (dataset->encoding == ENCODING_RAW) {
        *height = dataset->height;
        *width = dataset->width;
        return true;
    }
    if (!read_header(reader, reader->stored, reader->stored_bytes, error))
        return false;
    *height = (size_t)reader->height;
    *width = (size_t)reader->width;
    return true;
}

/* The smallest scale that leaves enough pixels, of those whose transforms libturbojpeg has in vector code: 7/8 would
 * take twice as long as no scaling at all. */
static tjscalingfactor choose_scale(int height, int width, size_t least_height, size_t least_width)
{
    tjscalingfactor scale = {1, 1};
    while (scale.denom < 8) {
        tjscalingfactor half = {1, 2 * scale.denom};
        if ((size_t)TJSCALED(height, half) < least_height || (size_t)TJSCALED(width, half) < least_width)
            break;
        scale = half;
    }
    return scale;
}

static bool decode(struct image_reader *reader, const uint8_t *stream, size_t stream_bytes, tjscalingfactor factor,
                   struct pixels *pixels, struct error *error)
{
    int height = TJSCALED(reader->height, factor), width = TJSCALED(reader->width, factor);
    size_t stride = (size_t)width * reader->channels;
    if (!grow(&reader->decoded, &reader->decoded_capacity, (size_t)height * stride + PATCHES_SLACK_BYTES, error))
        return false;
    if (tjDecompress2(reader->decoder, stream, stream_bytes, reader->decoded, width, (int)stride, height,
                      reader->channels == 1 ? TJPF_GRAY : TJPF_RGB, 0) != 0)
        return damaged(reader, error);
    *pixels = (struct pixels){reader->decoded, (size_t)height, (size_t)width, reader->channels, stride};
    return true;
}

bool image_decode(struct image_reader *reader, size_t least_height, size_t least_width, struct pixels *pixels,
                  struct error *error)
{
    const struct dataset *dataset = reader->dataset;
    if (dataset->encoding == ENCODING_RAW) {
        *pixels = (struct pixels){reader->stored, dataset->height, dataset->width, dataset->channels,
                                  dataset->width * dataset->channels};
        return true;
    }
    tjscalingfactor factor = choose_scale(reader->height, reader->width, least_height, least_width);
    return decode(reader, reader->stored, reader->stored_bytes, factor, pixels, error);
}

bool image_decode_stream(struct image_reader *reader, const uint8_t *stream, size_t stream_bytes, struct pixels *pixels,
                         struct error *error)
{
    return read_header(reader, stream, stream_bytes, error) &&
           decode(reader, stream, stream_bytes, (tjscalingfactor){1, 1}, pixels, error);
}
