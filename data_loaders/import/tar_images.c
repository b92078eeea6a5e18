/* Walks through tars, and through tars in them, and puts images and labels together. */
#include "data_loaders/import/tar_images.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "data_loaders/import/tar_lists.h"
#include "data_loaders/import/tar_names.h"
#include "data_loaders/import/tar_reader.h"

enum { MOST_CLASSES = 10000000 };

/* Of WebDataset: what has been read of the present key. */
struct keyed {
    char *key; /* NULL: none yet */
    struct tar_image image;
    bool has_image, has_label;
};

struct tar_images {
    struct tar_images_options options;
    struct tar_lists lists;
    size_t tar;                        /* the next to open */
    struct tar_reader *reader, *inner; /* NULL: none is open; inner: of TAR_OF_TARS */
    int32_t label;                     /* of the inner one */
    size_t images;                     /* seen so far */
    struct names_seen seen;            /* in the present tar */
    struct keyed keyed;
    size_t classes_seen; /* TAR_OF_KEYS: the greatest label and one */
};

void tar_image_free(struct tar_image *image)
{
    free(image->name);
    free(image->bytes);
    *image = (struct tar_image){0};
}

bool tar_images_open(struct tar_images **images, const struct tar_images_options *options, struct error *error)
{
    struct tar_images *opened = calloc(1, sizeof *opened);
    if (!opened)
        return error_runtime(error, "no memory for reading tars");
    opened->options = *options;
    if (!tar_lists_make(&opened->lists, options, error)) {
        free(opened);
        return false;
    }
    *images = opened;
    return true;
}

void tar_images_close(struct tar_images *images)
{
    if (!images)
        return;
    tar_reader_close(images->inner);
    tar_reader_close(images->reader);
    tar_lists_free(&images->lists);
    names_seen_free(&images->seen);
    tar_image_free(&images->keyed.image);
    free(images->keyed.key);
    free(images);
}

size_t tar_images_classes(const struct tar_images *images)
{
    return images->lists.class_names ? images->lists.classes : images->classes_seen;
}

const char *const *tar_images_class_names(const struct tar_images *images)
{
    return (const char *const *)images->lists.class_names;
}

/* ---- members ---- */

static bool is_new(struct tar_images *images, const char *name, size_t length, struct error *error)
{
    bool again;
    const struct tar_reader *reader = images->inner ? images->inner : images->reader;
    if (!names_seen_add(&images->seen, name, length, &again))
        return error_runtime(error, "%s: no memory for %zu names", tar_reader_path(reader), images->seen.count);
    return !again || error_input(error, "%s: '%.*s' is in it twice; which one counts?", tar_reader_path(reader),
                                 (int)length, name);
}

/* Opens the next tar; *end where there is none. */
static bool open_next(struct tar_images *images, bool *end, struct error *error)
{
    *end = images->tar == images->options.tar_count;
    names_seen_clear(&images->seen);
    return *end || tar_reader_open(&images->reader, images->options.tars[images->tar++], error);
}

/* The next member of the tars, one after the other; *end after the last. */
static bool next_member(struct tar_images *images, struct tar_member *member, bool *end, struct error *error)
{
    for (;;) {
        if (!images->reader && (!open_next(images, end, error) || *end))
            return *end;
        if (!tar_reader_next(images->reader, member, end, error))
            return false;
        if (!*end)
            return true;
        tar_reader_close(images->reader);
        images->reader = NULL;
        if (images->lists.kind == TAR_OF_KEYS && images->keyed.key) { /* keys do not go on in the next tar */
            *end = false;
            member->name = NULL;
            return true;
        }
    }
}

/* The member as an image; where it cannot be one, the reason why. */
static bool take(struct tar_image *image, struct tar_reader *reader, const struct tar_member *member,
                 struct error *error)
{
    if (asprintf(&image->name, "%s: %s", tar_reader_path(reader), member->name) < 0) {
        image->name = NULL;
        return error_runtime(error, "%s: no memory for a name", tar_reader_path(reader));
    }
    if (member->link)
        error_input(&image->error, "%s: is a link to another file; pack the file itself", image->name);
    else if (member->bytes > TAR_LARGEST_MEMBER)
        error_input(&image->error, "%s: has %llu bytes; at most %d MiB are expected of an image", image->name,
                    (unsigned long long)member->bytes, TAR_LARGEST_MEMBER >> 20);
    else
        return tar_reader_read(reader, &image->bytes, &image->byte_count, error);
    return true;
}

/* ---- images and a list of labels ---- */

static bool next_listed(struct tar_images *images, struct tar_image *image, bool *end, struct error *error)
{
    struct tar_member member;
    if (!next_member(images, &member, end, error) || *end)
        return *end;
    if (images->images == images->lists.images)
        return error_input(error, "%s: has grown while it was read", tar_reader_path(images->reader));
    image->label = images->lists.labels[images->images++];
    return take(image, images->reader, &member, error);
}

/* ---- tars of classes in a tar ---- */

/* Opens the next class that has a tar; *end where there is none. */
static bool next_class(struct tar_images *images, bool *end, struct error *error)
{
    struct tar_member member;
    if (!next_member(images, &member, end, error) || *end)
        return *end;
    if (member.link)
        return error_input(error, "%s: '%.200s' is a link to another file; pack the file itself",
                           tar_reader_path(images->reader), member.name);
    char *name = tar_name_class(member.name);
    size_t number = name ? name_index_find(&images->lists.index, name) : SIZE_MAX;
    free(name);
    if (number == SIZE_MAX)
        return error_input(error, "%s: '%.200s' was not there a moment ago", tar_reader_path(images->reader),
                           member.name);
    images->label = (int32_t)number;
    names_seen_clear(&images->seen);
    return tar_reader_open_inside(&images->inner, images->reader, error);
}

static bool next_of_classes(struct tar_images *images, struct tar_image *image, bool *end, struct error *error)
{
    for (;;) {
        struct tar_member member;
        if (!images->inner && (!next_class(images, end, error) || *end))
            return *end;
        if (!tar_reader_next(images->inner, &member, end, error))
            return false;
        if (!*end) {
            image->label = images->label;
            return is_new(images, member.name, strlen(member.name), error) &&
                   take(image, images->inner, &member, error);
        }
        tar_reader_close(images->inner);
        images->inner = NULL;
    }
}

/* ---- keys ---- */

static bool read_label(struct tar_images *images, const struct tar_member *member, int32_t *label, struct error *error)
{
    const char *path = tar_reader_path(images->reader);
    uint8_t *bytes = NULL;
    size_t count;
    if (member->link || member->bytes > 32)
        return error_input(error, "%s: '%.200s' is not a file with the number of a class", path, member->name);
    if (!tar_reader_read(images->reader, &bytes, &count, error))
        return false;
    char *text = (char *)bytes + strspn((char *)bytes, " \t\r\n"), *rest = text + strspn(text, "0123456789");
    bool number =
        rest > text && rest < text + 9 && rest[strspn(rest, " \t\r\n")] == '\0' && strlen((char *)bytes) == count;
    unsigned long value = number ? strtoul(text, NULL, 10) : 0;
    free(bytes);
    if (!number || value >= MOST_CLASSES)
        return error_input(error, "%s: '%.200s' does not hold the number of a class", path, member->name);
    if (images->lists.class_names && value >= images->lists.classes)
        return error_input(error, "%s: '%.200s' holds %lu, but %s lists %zu classes, counted from 0", path,
                           member->name, value, images->options.classes, images->lists.classes);
    *label = (int32_t)value;
    if (value >= images->classes_seen)
        images->classes_seen = value + 1;
    return true;
}

/* Adds a member to the present key. */
static bool absorb(struct tar_images *images, const struct tar_member *member, struct error *error)
{
    struct keyed *keyed = &images->keyed;
    const char *extension = tar_name_extension(member->name), *path = tar_reader_path(images->reader);
    bool is_image = tar_name_is_image(extension), is_label = strcasecmp(extension, "cls") == 0;
    if ((is_image && keyed->has_image) || (is_label && keyed->has_label))
        return error_input(error, "%s: '%.200s' is a second %s of its key", path, member->name,
                           is_image ? "image" : "class");
    keyed->has_image = keyed->has_image || is_image;
    keyed->has_label = keyed->has_label || is_label;
    if (is_label)
        return read_label(images, member, &keyed->image.label, error);
    return !is_image || take(&keyed->image, images->reader, member, error);
}

/* Hands out the key that is complete, if it is worth it; *some: it is. */
static bool hand_out(struct keyed *keyed, struct tar_image *image, bool *some, struct error *error)
{
    *some = keyed->has_image || keyed->has_label;
    if (*some && !keyed->image.name)
        keyed->image.name = strdup(keyed->key);
    if (*some && !keyed->image.name)
        return error_runtime(error, "no memory for a name");
    *image = keyed->image;
    if (*some && keyed->has_image != keyed->has_label && image->error.status == ERROR_NONE) {
        free(image->bytes);
        image->bytes = NULL;
        error_input(&image->error, "%s: has no %s beside it", image->name, keyed->has_image ? ".cls" : "image");
    }
    free(keyed->key);
    *keyed = (struct keyed){0};
    return true;
}

static bool next_key(struct tar_images *images, const struct tar_member *member, size_t length, struct error *error)
{
    if (!is_new(images, member->name, length, error))
        return false;
    images->keyed.key = strndup(member->name, length);
    return images->keyed.key || error_runtime(error, "no memory for a name");
}

static bool next_keyed(struct tar_images *images, struct tar_image *image, bool *end, struct error *error)
{
    struct keyed *keyed = &images->keyed;
    bool some = false;
    while (!some) {
        struct tar_member member;
        if (!next_member(images, &member, end, error) || *end)
            return *end;
        if (!member.name) { /* the end of a tar */
            if (!hand_out(keyed, image, &some, error))
                return false;
            continue;
        }
        const char *extension = tar_name_extension(member.name);
        size_t length = (size_t)(extension - member.name) - (*extension ? 1 : 0);
        bool same = keyed->key && strncmp(keyed->key, member.name, length) == 0 && keyed->key[length] == '\0';
        if (!same && keyed->key && !hand_out(keyed, image, &some, error))
            return false;
        if ((!same && !next_key(images, &member, length, error)) || !absorb(images, &member, error))
            return false;
    }
    return true;
}

bool tar_images_next(struct tar_images *images, struct tar_image *image, bool *end, struct error *error)
{
    *image = (struct tar_image){0};
    *end = false;
    bool ok = images->lists.kind == TAR_OF_TARS    ? next_of_classes(images, image, end, error)
              : images->lists.kind == TAR_AND_LIST ? next_listed(images, image, end, error)
                                                   : next_keyed(images, image, end, error);
    if (!ok)
        tar_image_free(image);
    return ok;
}
