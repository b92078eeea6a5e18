#include "data_loaders/image_convert.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vips/vips.h>
#include <vips/vector.h>

#include "data_loaders/jpeg_convert.h"
#include "data_loaders/jpeg_header.h"

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
    const char *vips_path; /* what libvips is to be given, see name_for_vips */
    char descriptor_path[32];
    uint8_t *bytes; /* NULL: no JPEG, or one for libvips alone */
    size_t byte_count;
    struct jpeg_header header; /* where bytes are */
};

/* Warnings (of odd profiles and tags) would come between our own lines; what matters comes back as an error. */
static void ignore_warning(const gchar *domain, GLogLevelFlags level, const gchar *message, gpointer data)
{
    (void)domain, (void)level, (void)message, (void)data;
}

bool image_convert_begin(const char *program, struct error *error)
{
    if (vips_init(program) != 0)
        return error_runtime(error, "libvips cannot start: %s", vips_error_buffer());
    g_log_set_handler("VIPS", G_LOG_LEVEL_WARNING, ignore_warning, NULL);
    vips_vector_set_enabled(FALSE); /* Orc makes code at run time; it crashed in 5 of 1131 imports */
    vips_concurrency_set(1);
    vips_cache_set_max(0);
    return true;
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

void image_convert_thread_end(void)
{
    vips_thread_shutdown();
}

/* libvips takes [...] at the end of a name for options and aborts on some names with quotes. An empty pair after the
 * name does not help: it is cut off twice, to open the file and again to choose the format. So such a file goes by its
 * descriptor. Others keep their names, by which formats of several files find the rest. */
static void name_for_vips(struct source *source)
{
    size_t end = strlen(source->path);
    while (end > 0 && strchr(" \t\n\r", source->path[end - 1]))
        end--;
    source->vips_path = source->path;
    if (strpbrk(source->path, "\"'") || (end > 0 && source->path[end - 1] == ']')) {
        snprintf(source->descriptor_path, sizeof source->descriptor_path, "/proc/self/fd/%d", fileno(source->file));
        source->vips_path = source->descriptor_path;
    }
}

static bool open_source(struct source *source, const char *path, struct error *error)
{
    *source = (struct source){.path = path, .file = fopen(path, "rb")};
    FILE *file = source->file;
    uint8_t *bytes = NULL;
    if (!file)
        return error_input(error, "%s: %s", path, strerror(errno));
    name_for_vips(source);
    long end = fgetc(file) == 0xFF && fgetc(file) == 0xD8 && fseek(file, 0, SEEK_END) == 0 ? ftell(file) : -1;
    if (end > 0 && fseek(file, 0, SEEK_SET) == 0 && (bytes = malloc((size_t)end)) != NULL)
        source->byte_count = fread(bytes, 1, (size_t)end, file);
    if (jpeg_header_read(&source->header, bytes, source->byte_count))
        source->bytes = bytes;
    else
        free(bytes);
    return true;
}

static void close_source(struct source *source)
{
    fclose(source->file);
    free(source->bytes);
}

/* Upright, and its numbers are its colours. */
static bool plain(const struct source *source)
{
    return source->bytes && source->header.upright && !source->header.profile &&
           (source->header.components == 1 || source->header.components == 3);
}

static size_t lesser(size_t height, size_t width)
{
    return height < width ? height : width;
}

/* The first line of what libvips says, which is emptied here, with the file's own name for the one that libvips got. */
static bool vips_failed(const struct source *source, struct error *error)
{
    char *said = vips_error_buffer_copy();
    const char *reason = said && *said ? said : "is no image.";
    const char *name = strstr(reason, source->vips_path);
    const char *rest = name ? name + strlen(source->vips_path) : reason;
    error_input(error, "%s: %.*s%s%.*s", source->path, name ? (int)(name - reason) : 0, reason,
                name ? source->path : "", (int)strcspn(rest, "\n"), rest);
    g_free(said);
    return false;
}

/* Each step takes over `image` and gives back its successor, or NULL. */
static VipsImage *step(VipsImage *image, VipsImage *next, int status)
{
    g_object_unref(image);
    return status == 0 ? next : NULL;
}

/* 8-bit sRGB without transparency. */
static VipsImage *to_rgb(VipsImage *image)
{
    VipsImage *next = NULL;
    int status;
    if (vips_image_hasalpha(image)) {
        double white_value = image->BandFmt == VIPS_FORMAT_USHORT ? 65535 : 255;
        VipsArrayDouble *white = vips_array_double_newv(1, white_value);
        status = vips_flatten(image, &next, "background", white, "max_alpha", white_value, NULL);
        vips_area_unref(VIPS_AREA(white));
        if (!(image = step(image, next, status)))
            return NULL;
    }
    status = vips_colourspace(image, &next, VIPS_INTERPRETATION_sRGB, NULL);
    if (!(image = step(image, next, status)))
        return NULL;
    status = vips_cast_uchar(image, &next, NULL);
    if (!(image = step(image, next, status)) || image->Bands == 3)
        return image;
    status = image->Bands > 3 ? vips_extract_band(image, &next, 0, "n", 3, NULL)
                              : vips_bandjoin((VipsImage *[]){image, image, image}, &next, 3, NULL);
    return step(image, next, status);
}

/* Whether vips_thumbnail must be told to end in sRGB. Without need it takes sRGB to XYZ and back: slow, and a number
 * off here and there. */
static bool needs_export(const struct source *source)
{
    if (plain(source))
        return false;
    VipsImage *header = vips_image_new_from_file(source->vips_path, "access", VIPS_ACCESS_SEQUENTIAL, NULL);
    bool needs = header && (vips_image_get_typeof(header, VIPS_META_ICC_NAME) != 0 ||
                            vips_image_get_interpretation(header) == VIPS_INTERPRETATION_CMYK);
    g_clear_object(&header);
    return needs;
}

/* width x height after turning by EXIF, in sRGB; `crop` keeps the aspect ratio and cuts the centre out. vips_thumbnail
 * decodes JPEG at a fraction where it can. A file whose colour profile does not fit its pixels (an RGB profile in a
 * grayscale photograph) is read again without the profile. */
static VipsImage *open_resized(const struct source *source, int width, int height, bool crop)
{
    VipsImage *image = NULL, *copy = NULL;
    VipsInteresting interesting = crop ? VIPS_INTERESTING_CENTRE : VIPS_INTERESTING_NONE;
    VipsSize fit = crop ? VIPS_SIZE_BOTH : VIPS_SIZE_FORCE;
    const char *export_option = needs_export(source) ? "export_profile" : NULL; /* NULL ends the options */
    if (vips_thumbnail(source->vips_path, &image, width, "height", height, "crop", interesting, "size", fit, "fail_on",
                       VIPS_FAIL_ON_TRUNCATED, export_option, "srgb", NULL) == 0 &&
        (copy = vips_image_copy_memory(image)) != NULL) { /* errors of decoding come only now */
        g_object_unref(image);
        return copy;
    }
    g_clear_object(&image);
    image = vips_image_new_from_file(source->vips_path, "fail_on", VIPS_FAIL_ON_TRUNCATED, NULL);
    if (!image || vips_image_get_typeof(image, VIPS_META_ICC_NAME) == 0 || vips_copy(image, &copy, NULL) != 0) {
        g_clear_object(&image);
        return NULL;
    }
    g_object_unref(image);
    vips_image_remove(copy, VIPS_META_ICC_NAME);
    vips_error_clear();
    int status = vips_thumbnail_image(copy, &image, width, "height", height, "crop", interesting, "size", fit, NULL);
    return step(copy, image, status);
}

/* To sRGB through the embedded profile; one that does not fit is as good as none. */
static VipsImage *apply_profile(VipsImage *image)
{
    VipsImage *next = NULL;
    if (vips_image_get_typeof(image, VIPS_META_ICC_NAME) == 0)
        return image;
    if (vips_icc_transform(image, &next, "srgb", "embedded", TRUE, NULL) != 0) {
        vips_error_clear();
        return image;
    }
    return step(image, next, 0);
}

/* As large as it is, or with its shorter side shrunk to `limit` (0 = none). */
static VipsImage *open_upright(const struct source *source, size_t limit)
{
    VipsImage *next = NULL;
    VipsImage *image = vips_image_new_from_file(source->vips_path, "access", VIPS_ACCESS_SEQUENTIAL, "fail_on",
                                                VIPS_FAIL_ON_TRUNCATED, NULL);
    if (!image)
        return NULL;
    int shorter = image->Xsize < image->Ysize ? image->Xsize : image->Ysize;
    /* of which only vips_thumbnail makes the right colours */
    bool lab = image->Type == VIPS_INTERPRETATION_LAB || image->Type == VIPS_INTERPRETATION_LABS;
    if ((limit > 0 && (size_t)shorter > limit) || lab) {
        double scale = limit > 0 && (size_t)shorter > limit ? (double)limit / shorter : 1;
        int width = (int)(image->Xsize * scale + 0.5), height = (int)(image->Ysize * scale + 0.5);
        bool turned = vips_image_get_orientation_swap(image);
        g_object_unref(image);
        return open_resized(source, turned ? height : width, turned ? width : height, false);
    }
    image = apply_profile(image);
    if (vips_image_get_orientation(image) > 1) {
        next = vips_image_copy_memory(image); /* turning needs rows in another order than the decoder gives them */
        if (!(image = step(image, next, next ? 0 : -1)))
            return NULL;
    }
    int status = vips_autorot(image, &next, NULL);
    return step(image, next, status);
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
    ok = convert(converter, converted, source, size) || vips_failed(source, error);
    pthread_rwlock_unlock(&vips_reasons);
    return ok;
}

static bool vips_pixels(struct image_converter *converter, struct converted *converted, const struct source *source,
                        size_t size)
{
    (void)converter;
    VipsImage *image = size > 0 ? open_resized(source, (int)size, (int)size, true) : open_upright(source, 0);
    if (image)
        image = to_rgb(image);
    if (!image)
        return false;
    size_t bytes = 0, height = (size_t)image->Ysize, width = (size_t)image->Xsize;
    uint8_t *pixels = vips_image_write_to_memory(image, &bytes);
    g_object_unref(image);
    bool ok = pixels && keep_pixels(converted, &(struct pixels){pixels, height, width, 3, width * 3}, 0);
    g_free(pixels);
    return ok;
}

bool image_to_pixels(struct image_converter *converter, struct converted *converted, const char *path, size_t size,
                     struct error *error)
{
    struct source source;
    struct pixels pixels;
    *converted = (struct converted){0};
    if (!open_source(&source, path, error))
        return false;
    bool fits = plain(&source) && (size == 0 || size == lesser(source.header.height, source.header.width));
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
    VipsImage *image = open_upright(source, size);
    if (image)
        image = to_rgb(image);
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

bool image_to_jpeg(struct image_converter *converter, struct converted *converted, const char *path, size_t size,
                   struct error *error)
{
    struct source source;
    *converted = (struct converted){0};
    if (!open_source(&source, path, error))
        return false;
    const struct jpeg_header *header = &source.header;
    bool usable = source.bytes && header->upright && (header->components == 1 || header->components == 3) &&
                  (size == 0 || lesser(header->height, header->width) <= size);
    bool ok = (usable && take_over(converter, converted, &source)) ||
              through_vips(encode, converter, converted, &source, size, error);
    close_source(&source);
    return ok;
}
