/* From a file to pixels or a stream: as it stands where it can be, through libvips where it must be. */
#include "data_loaders/import/image_convert.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "data_loaders/import/jpeg_convert.h"
#include "data_loaders/import/jpeg_header.h"
#include "data_loaders/import/vips_image.h"

enum { JPEG_QUALITY = 90 };

/* libvips writes what is wrong into one buffer for all threads. Conversions share this lock; one that failed is done
 * again with the lock to itself, so that the buffer holds its reason and no other's. */
static pthread_rwlock_t vips_reasons = PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP;

struct image_converter {
    struct jpeg_converter *jpeg;
};

/* One file on its way. */
struct source {
    const char *path;
    FILE *file;
    struct vips_file named;
    uint8_t *bytes; /* NULL: no JPEG, or one for libvips alone */
    size_t byte_count;
    struct jpeg_header header; /* where bytes are */
};

bool image_convert_begin(const char *program, struct error *error)
{
    return vips_image_begin(program, error);
}

void image_convert_thread_end(void)
{
    vips_image_thread_end();
}

bool image_converter_open(struct image_converter **converter, struct error *error)
{
    struct image_converter *opened = calloc(1, sizeof *opened);
    if (!opened)
        return error_runtime(error, "no memory for converting images");
    if (!jpeg_converter_open(&opened->jpeg, error)) {
        free(opened);
        return false;
    }
    *converter = opened;
    return true;
}

void image_converter_close(struct image_converter *converter)
{
    if (converter)
        jpeg_converter_close(converter->jpeg);
    free(converter);
}

/* Bytes as a file that has no name, because libvips finds the rest by names and descriptors alone. */
static FILE *file_of_bytes(const struct image_place *place)
{
    int descriptor = memfd_create("image", MFD_CLOEXEC);
    FILE *file = descriptor >= 0 ? fdopen(descriptor, "w+b") : NULL;
    if (!file && descriptor >= 0)
        close(descriptor);
    if (!file || (fwrite(place->bytes, 1, place->byte_count, file) == place->byte_count && fflush(file) == 0 &&
                  fseek(file, 0, SEEK_SET) == 0))
        return file;
    fclose(file);
    return NULL;
}

static bool open_source(struct source *source, const struct image_place *place, struct error *error)
{
    FILE *file = place->bytes ? file_of_bytes(place) : fopen(place->path, "rb");
    *source = (struct source){.path = place->path, .file = file};
    uint8_t *bytes = NULL;
    if (!file)
        return error_input(error, "%s: %s", place->path, strerror(errno));
    (place->bytes ? vips_file_unnamed : vips_file_name)(&source->named, place->path, file);
    /* NOLINTNEXTLINE(misc-redundant-expression): two bytes, one after the other */
    long end = fgetc(file) == 0xFF && fgetc(file) == 0xD8 && fseek(file, 0, SEEK_END) == 0 ? ftell(file) : -1;
    if (end > 0 && fseek(file, 0, SEEK_SET) == 0 && (bytes = malloc((size_t)end)) != NULL)
        source->byte_count = fread(bytes, 1, (size_t)end, file);
    if (jpeg_header_read(&source->header, bytes, source->byte_count))
        source->bytes = bytes;
    else
        free(bytes);
    source->named.plain = source->bytes && source->header.upright && !source->header.profile &&
                          (source->header.components == 1 || source->header.components == 3);
    return true;
}

static void close_source(struct source *source)
{
    fclose(source->file);
    free(source->bytes);
}

static size_t lesser(size_t height, size_t width)
{
    return height < width ? height : width;
}

/* The centre square of `size`, or everything, as pixels of our own. */
static bool keep_pixels(struct converted *converted, const struct pixels *pixels, size_t size)
{
    size_t height = size ? size : pixels->height, width = size ? size : pixels->width;
    const uint8_t *row = pixels->bytes + (pixels->height - height) / 2 * pixels->stride;
    converted->bytes = malloc(height * width * 3 + 1);
    if (!converted->bytes)
        return false;
    for (size_t y = 0; y < height; y++)
        memcpy(converted->bytes + y * width * 3, row + y * pixels->stride + (pixels->width - width) / 2 * 3, width * 3);
    converted->byte_count = height * width * 3;
    converted->height = height;
    converted->width = width;
    pixel_sums_add(&converted->sums, &(struct pixels){converted->bytes, height, width, 3, width * 3});
    return true;
}

typedef bool conversion(struct image_converter *converter, struct converted *converted, const struct source *source,
                        size_t size);

static bool through_vips(conversion *convert, struct image_converter *converter, struct converted *converted,
                         const struct source *source, size_t size, struct error *error)
{
    pthread_rwlock_rdlock(&vips_reasons);
    bool ok = convert(converter, converted, source, size);
    pthread_rwlock_unlock(&vips_reasons);
    if (ok)
        return true;
    pthread_rwlock_wrlock(&vips_reasons);
    vips_error_clear();
    ok = convert(converter, converted, source, size) || vips_file_failed(&source->named, error);
    pthread_rwlock_unlock(&vips_reasons);
    return ok;
}

static bool vips_pixels(struct image_converter *converter, struct converted *converted, const struct source *source,
                        size_t size)
{
    (void)converter;
    const struct vips_file *file = &source->named;
    VipsImage *image = size > 0 ? vips_file_square(file, size) : vips_file_upright(file, 0);
    if (!image)
        return false;
    size_t bytes = 0, height = (size_t)image->Ysize, width = (size_t)image->Xsize;
    uint8_t *pixels = vips_image_write_to_memory(image, &bytes);
    g_object_unref(image);
    bool ok = pixels && keep_pixels(converted, &(struct pixels){pixels, height, width, 3, width * 3}, 0);
    g_free(pixels);
    return ok;
}

bool image_to_pixels(struct image_converter *converter, struct converted *converted, const struct image_place *place,
                     size_t size, struct error *error)
{
    struct source source;
    struct pixels pixels;
    *converted = (struct converted){0};
    if (!open_source(&source, place, error))
        return false;
    bool fits = source.named.plain && (size == 0 || size == lesser(source.header.height, source.header.width));
    bool ok = (fits && jpeg_decode(converter->jpeg, source.bytes, source.byte_count, &pixels) &&
               lesser(pixels.height, pixels.width) >= size && keep_pixels(converted, &pixels, size)) ||
              through_vips(vips_pixels, converter, converted, &source, size, error);
    close_source(&source);
    return ok;
}

/* ---- JPEG streams ---- */

/* The stream becomes the result if the loader will accept it. */
static bool keep_stream(struct image_converter *converter, struct converted *converted, uint8_t *stream, size_t bytes)
{
    struct pixels pixels;
    if (!jpeg_decode(converter->jpeg, stream, bytes, &pixels))
        return false;
    *converted = (struct converted){stream, bytes, pixels.height, pixels.width, {0}};
    pixel_sums_add(&converted->sums, &pixels);
    return true;
}

/* The file itself, made baseline where it is not. */
static bool take_over(struct image_converter *converter, struct converted *converted, struct source *source)
{
    uint8_t *stream = source->bytes;
    size_t bytes = source->byte_count;
    if (source->header.progressive)
        stream = jpeg_to_baseline(converter->jpeg, source->bytes, source->byte_count, &bytes);
    bool kept = stream && keep_stream(converter, converted, stream, bytes);
    if (kept && stream == source->bytes)
        source->bytes = NULL;
    else if (!kept && stream != source->bytes)
        free(stream);
    return kept;
}

static bool encode(struct image_converter *converter, struct converted *converted, const struct source *source,
                   size_t size)
{
    VipsImage *image = vips_file_upright(&source->named, size);
    if (!image)
        return false;
    void *stream = NULL;
    size_t bytes = 0;
    int status = vips_jpegsave_buffer(image, &stream, &bytes, "Q", JPEG_QUALITY, "strip", TRUE, NULL);
    g_object_unref(image);
    if (status == 0 && keep_stream(converter, converted, stream, bytes))
        return true; /* g_malloc is malloc since GLib 2.46 */
    g_free(stream);
    return false;
}

bool image_to_jpeg(struct image_converter *converter, struct converted *converted, const struct image_place *place,
                   size_t size, struct error *error)
{
    struct source source;
    *converted = (struct converted){0};
    if (!open_source(&source, place, error))
        return false;
    const struct jpeg_header *header = &source.header;
    bool usable = source.bytes && header->upright && (header->components == 1 || header->components == 3) &&
                  (size == 0 || lesser(header->height, header->width) <= size);
    bool ok = (usable && take_over(converter, converted, &source)) ||
              through_vips(encode, converter, converted, &source, size, error);
    close_source(&source);
    return ok;
}
