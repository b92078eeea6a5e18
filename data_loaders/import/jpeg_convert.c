/* Decodes JPEG files, or rewrites them as baseline without loss, through libturbojpeg. */
#include "data_loaders/import/jpeg_convert.h"

#include <stdlib.h>
#include <string.h>
#include <turbojpeg.h>

/* The loader takes no larger ones (a hostile header promises much); libvips does not hold such a picture whole. */
static const size_t LARGEST_PIXELS = (size_t)1 << 28;

struct jpeg_converter {
    tjhandle handle; /* decodes and transforms; NULL until there is a stream */
    uint8_t *pixels;
    size_t capacity;
};

bool jpeg_converter_open(struct jpeg_converter **converter, struct error *error)
{
    struct jpeg_converter *opened = calloc(1, sizeof *opened);
    if (!opened)
        return error_runtime(error, "no memory for converting images");
    *converter = opened;
    return true;
}

/* libturbojpeg 2.1 stays in the middle of a header that it has given up, and then fails with the next files too. */
static bool forget(struct jpeg_converter *converter)
{
    if (converter->handle)
        tjDestroy(converter->handle);
    converter->handle = NULL;
    return false;
}

static bool ready(struct jpeg_converter *converter)
{
    if (!converter->handle)
        converter->handle = tjInitTransform();
    return converter->handle != NULL;
}

void jpeg_converter_close(struct jpeg_converter *converter)
{
    if (!converter)
        return;
    forget(converter);
    free(converter->pixels);
    free(converter);
}

static bool grow(struct jpeg_converter *converter, size_t bytes)
{
    if (bytes <= converter->capacity)
        return true;
    free(converter->pixels);
    converter->pixels = malloc(bytes);
    converter->capacity = converter->pixels ? bytes : 0;
    return converter->pixels != NULL;
}

bool jpeg_decode(struct jpeg_converter *converter, const uint8_t *stream, size_t stream_bytes, struct pixels *pixels)
{
    int width = 0, height = 0, subsampling, colourspace = TJCS_RGB;
    if (!ready(converter))
        return false;
    if (tjDecompressHeader3(converter->handle, stream, stream_bytes, &width, &height, &subsampling, &colourspace) != 0)
        return forget(converter);
    if (colourspace == TJCS_CMYK || colourspace == TJCS_YCCK || width == 0 || height == 0)
        return false;
    size_t stride = (size_t)width * 3, bytes = (size_t)height * stride;
    if (bytes > 3 * LARGEST_PIXELS || !grow(converter, bytes + PIXELS_SLACK_BYTES) ||
        tjDecompress2(converter->handle, stream, stream_bytes, converter->pixels, width, 0, height, TJPF_RGB, 0) != 0)
        return false;
    *pixels = (struct pixels){converter->pixels, (size_t)height, (size_t)width, 3, stride};
    return true;
}

uint8_t *jpeg_to_baseline(struct jpeg_converter *converter, const uint8_t *stream, size_t stream_bytes,
                          size_t *baseline_bytes)
{
    unsigned char *baseline = NULL;
    unsigned long bytes = 0;
    tjtransform same = {.op = TJXOP_NONE, .options = TJXOPT_COPYNONE};
    uint8_t *copy = NULL;
    if (ready(converter) && tjTransform(converter->handle, stream, stream_bytes, 1, &baseline, &bytes, &same, 0) == 0)
        copy = malloc(bytes);
    else
        forget(converter);
    if (copy)
        memcpy(copy, baseline, bytes);
    tjFree(baseline);
    *baseline_bytes = bytes;
    return copy;
}
