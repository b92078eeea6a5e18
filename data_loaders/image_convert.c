#include "data_loaders/image_convert.h"

#include <stdlib.h>
#include <string.h>
#include <turbojpeg.h>
#include <vips/vips.h>

enum { JPEG_QUALITY = 90 };

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
    vips_concurrency_set(1);
    vips_cache_set_max(0);
    return true;
}

void image_convert_thread_end(void)
{
    vips_thread_shutdown();
}

/* The first line of what libvips says, which is shared by all threads and emptied here. */
static bool vips_failed(const char *path, struct error *error)
{
    char *said = vips_error_buffer_copy();
    size_t line = said ? strcspn(said, "\n") : 0;
    error_input(error, "%s: %.*s", path, line ? (int)line : 12, line ? said : "is no image.");
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

/* width x height after turning by EXIF, in sRGB; `crop` keeps the aspect ratio and cuts the centre out. vips_thumbnail
 * decodes JPEG at a fraction where it can. A file whose colour profile does not fit its pixels (an RGB profile in a
 * grayscale photograph) is read again without the profile. */
static VipsImage *open_resized(const char *path, int width, int height, bool crop)
{
    VipsImage *image = NULL, *plain = NULL;
    VipsInteresting interesting = crop ? VIPS_INTERESTING_CENTRE : VIPS_INTERESTING_NONE;
    VipsSize fit = crop ? VIPS_SIZE_BOTH : VIPS_SIZE_FORCE;
    if (vips_thumbnail(path, &image, width, "height", height, "crop", interesting, "size", fit, "fail_on",
                       VIPS_FAIL_ON_TRUNCATED, "export_profile", "srgb", NULL) == 0 &&
        (plain = vips_image_copy_memory(image)) != NULL) { /* errors of decoding come only now */
        g_object_unref(image);
        return plain;
    }
    g_clear_object(&image);
    image = vips_image_new_from_file(path, "fail_on", VIPS_FAIL_ON_TRUNCATED, NULL);
    if (!image || vips_image_get_typeof(image, VIPS_META_ICC_NAME) == 0 || vips_copy(image, &plain, NULL) != 0) {
        g_clear_object(&image);
        return NULL;
    }
    g_object_unref(image);
    vips_image_remove(plain, VIPS_META_ICC_NAME);
    vips_error_clear();
    int status = vips_thumbnail_image(plain, &image, width, "height", height, "crop", interesting, "size", fit, NULL);
    return step(plain, image, status);
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
static VipsImage *open_upright(const char *path, size_t limit)
{
    VipsImage *next = NULL;
    VipsImage *image =
        vips_image_new_from_file(path, "access", VIPS_ACCESS_SEQUENTIAL, "fail_on", VIPS_FAIL_ON_TRUNCATED, NULL);
    if (!image)
        return NULL;
    int shorter = image->Xsize < image->Ysize ? image->Xsize : image->Ysize;
    if (limit > 0 && (size_t)shorter > limit) {
        double scale = (double)limit / shorter;
        int width = (int)(image->Xsize * scale + 0.5), height = (int)(image->Ysize * scale + 0.5);
        bool turned = vips_image_get_orientation_swap(image);
        g_object_unref(image);
        return open_resized(path, turned ? height : width, turned ? width : height, false);
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

bool image_to_pixels(struct converted *converted, const char *path, size_t size, struct error *error)
{
    VipsImage *image = size > 0 ? open_resized(path, (int)size, (int)size, true) : open_upright(path, 0);
    if (image)
        image = to_rgb(image);
    if (!image)
        return vips_failed(path, error);
    size_t bytes = 0;
    uint8_t *pixels = vips_image_write_to_memory(image, &bytes);
    *converted = (struct converted){malloc(bytes + 64), bytes, (size_t)image->Ysize, (size_t)image->Xsize};
    if (pixels && converted->bytes)
        memcpy(converted->bytes, pixels, bytes);
    bool ok = pixels && converted->bytes;
    g_free(pixels);
    g_object_unref(image);
    if (!ok)
        free(converted->bytes);
    return ok || vips_failed(path, error);
}

/* ---- JPEG streams ---- */

/* What the header says about taking a file over as it is. */
struct jpeg_facts {
    bool usable;      /* RGB or grayscale, upright, small enough */
    bool progressive; /* several scans */
};

static struct jpeg_facts look_at(const char *path, size_t size)
{
    struct jpeg_facts facts = {false, false};
    const char *loader = vips_foreign_find_load(path);
    if (!loader || strcmp(loader, "VipsForeignLoadJpegFile") != 0)
        return facts;
    VipsImage *image = vips_image_new_from_file(path, "access", VIPS_ACCESS_SEQUENTIAL, NULL);
    if (!image)
        return facts;
    size_t shorter = (size_t)(image->Xsize < image->Ysize ? image->Xsize : image->Ysize);
    int interlaced = 0;
    if (vips_image_get_typeof(image, "interlaced") != 0)
        vips_image_get_int(image, "interlaced", &interlaced);
    facts.progressive = interlaced != 0;
    facts.usable = (image->Bands == 1 || image->Bands == 3) && vips_image_get_orientation(image) <= 1 &&
                   (size == 0 || shorter <= size);
    g_object_unref(image);
    return facts;
}

/* Baseline, whole and without warnings: exactly what the loader will accept. */
static bool decodes(tjhandle decoder, const uint8_t *stream, size_t bytes, size_t *height, size_t *width)
{
    int w, h, subsampling, colourspace;
    if (tjDecompressHeader3(decoder, stream, bytes, &w, &h, &subsampling, &colourspace) != 0 ||
        colourspace == TJCS_CMYK || colourspace == TJCS_YCCK)
        return false;
    uint8_t *pixels = malloc((size_t)w * (size_t)h * 3);
    bool ok = pixels && tjDecompress2(decoder, stream, bytes, pixels, w, 0, h, TJPF_RGB, 0) == 0;
    free(pixels);
    *height = (size_t)h;
    *width = (size_t)w;
    return ok;
}

/* The file itself, made baseline where it is not. NULL: encode it anew. */
static uint8_t *take_over(const char *path, bool progressive, struct converted *converted)
{
    gchar *file = NULL;
    gsize file_bytes = 0;
    if (!g_file_get_contents(path, &file, &file_bytes, NULL))
        return NULL;
    uint8_t *stream = NULL;
    unsigned long stream_bytes = 0;
    tjhandle handle = tjInitTransform();
    tjtransform same = {.op = TJXOP_NONE, .options = TJXOPT_COPYNONE};
    if (handle && progressive) {
        unsigned char *baseline = NULL;
        if (tjTransform(handle, (unsigned char *)file, file_bytes, 1, &baseline, &stream_bytes, &same, 0) == 0)
            stream = g_memdup2(baseline, stream_bytes);
        tjFree(baseline);
        g_free(file);
    } else {
        stream = (uint8_t *)file;
        stream_bytes = file_bytes;
    }
    if (stream && !(handle && decodes(handle, stream, stream_bytes, &converted->height, &converted->width))) {
        g_free(stream);
        stream = NULL;
    }
    if (handle)
        tjDestroy(handle);
    converted->byte_count = stream_bytes;
    return stream; /* g_malloc is malloc since GLib 2.46 */
}

bool image_to_jpeg(struct converted *converted, const char *path, size_t size, struct error *error)
{
    struct jpeg_facts facts = look_at(path, size);
    if (facts.usable) {
        converted->bytes = take_over(path, facts.progressive, converted);
        if (converted->bytes)
            return true;
    }
    VipsImage *image = open_upright(path, size);
    if (image)
        image = to_rgb(image);
    if (!image)
        return vips_failed(path, error);
    void *stream = NULL;
    size_t bytes = 0;
    int status = vips_jpegsave_buffer(image, &stream, &bytes, "Q", JPEG_QUALITY, "strip", TRUE, NULL);
    *converted = (struct converted){stream, bytes, (size_t)image->Ysize, (size_t)image->Xsize};
    g_object_unref(image);
    return status == 0 || vips_failed(path, error);
}
