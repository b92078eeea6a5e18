/* Colours, turning and resizing by libvips. */
#include "data_loaders/import/vips_image.h"

#include <string.h>
#include <vips/vector.h>

/* Warnings (of odd profiles and tags) would come between our own lines; what matters comes back as an error. */
static void ignore_warning(const gchar *domain, GLogLevelFlags level, const gchar *message, gpointer data)
{
    (void)domain, (void)level, (void)message, (void)data;
}

bool vips_image_begin(const char *program, struct error *error)
{
    if (vips_init(program) != 0)
        return error_runtime(error, "libvips cannot start: %s", vips_error_buffer());
    g_log_set_handler("VIPS", G_LOG_LEVEL_WARNING, ignore_warning, NULL);
    vips_vector_set_enabled(FALSE); /* Orc makes code at run time; it crashed in 5 of 1131 imports */
    vips_concurrency_set(1);
    vips_cache_set_max(0);
    return true;
}

void vips_image_thread_end(void)
{
    vips_thread_shutdown();
}

/* libvips takes [...] at the end of a name for options and aborts on some names with quotes. An empty pair after the
 * name does not help: it is cut off twice, to open the file and again to choose the format. So such a file goes by its
 * descriptor. Others keep their names, by which formats of several files find the rest. */
void vips_file_unnamed(struct vips_file *named, const char *path, FILE *file)
{
    snprintf(named->descriptor_path, sizeof named->descriptor_path, "/proc/self/fd/%d", fileno(file));
    named->path = path;
    named->name = named->descriptor_path;
}

void vips_file_name(struct vips_file *named, const char *path, FILE *file)
{
    size_t end = strlen(path);
    while (end > 0 && strchr(" \t\n\r", path[end - 1]))
        end--;
    named->path = named->name = path;
    if (strpbrk(path, "\"'") || (end > 0 && path[end - 1] == ']'))
        vips_file_unnamed(named, path, file);
}

/* The first line of what libvips says, which is emptied here, with the file's own name for the one that libvips got. */
bool vips_file_failed(const struct vips_file *file, struct error *error)
{
    char *said = vips_error_buffer_copy();
    const char *reason = said && *said ? said : "is no image.";
    const char *name = strstr(reason, file->name);
    const char *rest = name ? name + strlen(file->name) : reason;
    error_input(error, "%s: %.*s%s%.*s", file->path, name ? (int)(name - reason) : 0, reason, name ? file->path : "",
                (int)strcspn(rest, "\n"), rest);
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
static bool needs_export(const struct vips_file *file)
{
    if (file->plain)
        return false;
    VipsImage *header = vips_image_new_from_file(file->name, "access", VIPS_ACCESS_SEQUENTIAL, NULL);
    bool needs = header && (vips_image_get_typeof(header, VIPS_META_ICC_NAME) != 0 ||
                            vips_image_get_interpretation(header) == VIPS_INTERPRETATION_CMYK);
    g_clear_object(&header);
    return needs;
}

/* width x height after turning by EXIF, in sRGB; `crop` keeps the aspect ratio and cuts the centre out. vips_thumbnail
 * decodes JPEG at a fraction where it can. A file whose colour profile does not fit its pixels (an RGB profile in a
 * grayscale photograph) is read again without the profile. */
static VipsImage *open_resized(const struct vips_file *file, int width, int height, bool crop)
{
    VipsImage *image = NULL, *copy = NULL;
    VipsInteresting interesting = crop ? VIPS_INTERESTING_CENTRE : VIPS_INTERESTING_NONE;
    VipsSize fit = crop ? VIPS_SIZE_BOTH : VIPS_SIZE_FORCE;
    const char *export_option = needs_export(file) ? "export_profile" : NULL; /* NULL ends the options */
    if (vips_thumbnail(file->name, &image, width, "height", height, "crop", interesting, "size", fit, "fail_on",
                       VIPS_FAIL_ON_TRUNCATED, export_option, "srgb", NULL) == 0 &&
        (copy = vips_image_copy_memory(image)) != NULL) { /* errors of decoding come only now */
        g_object_unref(image);
        return copy;
    }
    g_clear_object(&image);
    image = vips_image_new_from_file(file->name, "fail_on", VIPS_FAIL_ON_TRUNCATED, NULL);
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
static VipsImage *open_upright(const struct vips_file *file, size_t limit)
{
    VipsImage *next = NULL;
    VipsImage *image =
        vips_image_new_from_file(file->name, "access", VIPS_ACCESS_SEQUENTIAL, "fail_on", VIPS_FAIL_ON_TRUNCATED, NULL);
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
        return open_resized(file, turned ? height : width, turned ? width : height, false);
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

VipsImage *vips_file_square(const struct vips_file *file, size_t size)
{
    VipsImage *image = open_resized(file, (int)size, (int)size, true);
    return image ? to_rgb(image) : NULL;
}

VipsImage *vips_file_upright(const struct vips_file *file, size_t limit)
{
    VipsImage *image = open_upright(file, limit);
    return image ? to_rgb(image) : NULL;
}
