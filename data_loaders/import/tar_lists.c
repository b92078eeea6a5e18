/* Looks through the names in the tars once, before the images are read, and numbers classes. */
#include "data_loaders/import/tar_lists.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "data_loaders/import/tar_names.h"
#include "data_loaders/import/tar_reader.h"

enum { MOST_CLASSES = 10000000 }; /* what a dataset file may say */

/* ---- a list that grows ---- */

struct names {
    char **list;
    size_t count, capacity;
};

/* Takes over `name`, NULL for no memory. */
static bool add_name(struct names *names, char *name, struct error *error)
{
    if (name && names->count == names->capacity) {
        size_t capacity = names->capacity ? 2 * names->capacity : 1024;
        char **grown = realloc(names->list, capacity * sizeof *grown);
        if (!grown) {
            free(name);
            name = NULL;
        } else {
            names->list = grown;
            names->capacity = capacity;
        }
    }
    if (name)
        names->list[names->count++] = name;
    return name ? true : error_runtime(error, "no memory for a list of %zu names", names->count);
}

static void free_names(struct names *names)
{
    for (size_t i = 0; i < names->count; i++)
        free(names->list[i]);
    free(names->list);
    *names = (struct names){0};
}

static int bytewise(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* ---- names in the tars ---- */

typedef bool take_name(struct names *names, const struct tar_reader *reader, const char *name, struct error *error);

static bool take_class(struct names *names, const struct tar_reader *reader, const char *name, struct error *error)
{
    char *class_name = tar_name_class(name);
    return class_name ? add_name(names, class_name, error)
                      : error_input(error, "%s: '%.200s' is no tar of a class, as the first member is; take it out",
                                    tar_reader_path(reader), name);
}

static bool take_image(struct names *names, const struct tar_reader *reader, const char *name, struct error *error)
{
    (void)reader;
    return add_name(names, strdup(name), error);
}

static bool list_tar(struct names *names, const char *path, take_name *take, size_t most, struct error *error)
{
    struct tar_reader *reader;
    struct tar_member member;
    bool end = false;
    if (!tar_reader_open(&reader, path, error))
        return false;
    bool ok = true;
    while (ok && !end) {
        ok = tar_reader_next(reader, &member, &end, error);
        if (ok && !end)
            ok = take(names, reader, member.name, error);
        if (ok && names->count > most)
            ok = error_input(error, "%s: holds more than the %zu members that are expected", path, most);
    }
    tar_reader_close(reader);
    return ok;
}

static bool list_tars(struct names *names, const struct tar_images_options *options, take_name *take, size_t most,
                      struct error *error)
{
    for (size_t i = 0; i < options->tar_count; i++)
        if (!list_tar(names, options->tars[i], take, most, error))
            return false;
    return true;
}

/* ---- classes ---- */

static bool read_classes(struct tar_lists *lists, const char *path, struct error *error)
{
    struct text_lines lines;
    struct names names = {0};
    if (!text_lines_read(&lines, path, error))
        return false;
    bool ok = lines.count <= MOST_CLASSES || error_input(error, "%s: lists more than %d classes", path, MOST_CLASSES);
    for (size_t i = 0; ok && i < lines.count; i++)
        ok = add_name(&names, strdup(lines.lines[i]), error);
    text_lines_free(&lines);
    if (!ok) {
        free_names(&names);
        return false;
    }
    lists->class_names = names.list;
    lists->classes = names.count;
    return name_index_make(&lists->index, lists->class_names, lists->classes, path, error);
}

/* Both are the same names, each once. */
static bool classes_fit(const struct tar_lists *lists, const struct tar_images_options *options,
                        const struct name_index *found, struct error *error)
{
    for (size_t i = 0; i < found->count; i++)
        if (name_index_find(&lists->index, found->entries[i].name) == SIZE_MAX)
            return error_input(error, "%s: holds class '%.100s', which %s does not list", options->tars[0],
                               found->entries[i].name, options->classes);
    for (size_t i = 0; i < lists->classes; i++)
        if (name_index_find(found, lists->class_names[i]) == SIZE_MAX)
            return error_input(error, "%s:%zu: lists class '%.100s', of which %s holds no tar", options->classes, i + 1,
                               lists->class_names[i], options->tars[0]);
    return true;
}

/* Without a list classes are numbered in the order of their names, as a folder's are. */
static bool classes_of_tars(struct tar_lists *lists, const struct tar_images_options *options, struct error *error)
{
    struct names names = {0};
    struct name_index found = {0};
    bool ok = list_tars(&names, options, take_class, MOST_CLASSES, error) &&
              name_index_make(&found, names.list, names.count, options->tars[0], error);
    if (ok && options->classes)
        ok = classes_fit(lists, options, &found, error);
    name_index_free(&found);
    if (ok && !options->classes) {
        qsort(names.list, names.count, sizeof *names.list, bytewise);
        lists->class_names = names.list;
        lists->classes = names.count;
        return name_index_make(&lists->index, lists->class_names, lists->classes, options->tars[0], error);
    }
    free_names(&names);
    return ok;
}

/* ---- labels ---- */

static bool is_number(const char *word)
{
    return *word && strlen(word) < 10 && word[strspn(word, "0123456789")] == '\0';
}

/* Without a list of classes, the distinct labels are the classes. */
static bool classes_of_labels(struct tar_lists *lists, const struct text_lines *labels, const char *path,
                              struct error *error)
{
    char **sorted = malloc(labels->count * sizeof *sorted);
    struct names names = {0};
    bool ok = sorted ? true : error_runtime(error, "%s: no memory for %zu labels", path, labels->count);
    for (size_t i = 0; ok && i < labels->count; i++) {
        sorted[i] = labels->lines[i];
        if (is_number(sorted[i]))
            ok = error_input(error, "%s:%zu: label %s is a number; --classes FILE says which class that is", path,
                             i + 1, sorted[i]);
    }
    if (ok)
        qsort(sorted, labels->count, sizeof *sorted, bytewise);
    for (size_t i = 0; ok && i < labels->count; i++)
        if (i == 0 || strcmp(sorted[i], sorted[i - 1]) != 0)
            ok = add_name(&names, strdup(sorted[i]), error);
    free(sorted);
    if (!ok) {
        free_names(&names);
        return false;
    }
    lists->class_names = names.list;
    lists->classes = names.count;
    return name_index_make(&lists->index, lists->class_names, lists->classes, path, error);
}

/* The class of a label, by name or by number. */
static bool find_label(const struct tar_lists *lists, const struct tar_images_options *options, const char *word,
                       size_t line, int32_t *label, struct error *error)
{
    size_t number = name_index_find(&lists->index, word);
    if (number == SIZE_MAX && is_number(word)) {
        number = (size_t)strtoul(word, NULL, 10);
        if (number < options->first_label || number - options->first_label >= lists->classes)
            return error_input(error,
                               "%s:%zu: label %s is not one of %zu to %zu, the lines of %s (--first-label says "
                               "what number its first line has)",
                               options->labels, line, word, options->first_label,
                               options->first_label + lists->classes - 1, options->classes);
        number -= options->first_label;
    }
    *label = (int32_t)number;
    return number != SIZE_MAX || error_input(error, "%s:%zu: label '%.100s' is not listed in %s", options->labels, line,
                                             word, options->classes);
}

/* Line i is the label of image i in the order of names; images are read in the order of the tars. */
static bool give_labels(struct tar_lists *lists, const struct tar_images_options *options,
                        const struct text_lines *labels, const struct names *images, struct error *error)
{
    struct name_index order;
    if (images->count != labels->count)
        return error_input(error, "%s: has %zu labels, but there are %zu images in %s", options->labels, labels->count,
                           images->count, options->tars[0]);
    if (!name_index_make(&order, images->list, images->count, options->tars[0], error))
        return false;
    lists->images = images->count;
    lists->labels = malloc(images->count * sizeof *lists->labels);
    bool ok = lists->labels ? true : error_runtime(error, "no memory for %zu labels", images->count);
    for (size_t i = 0; ok && i < order.count; i++)
        ok = find_label(lists, options, labels->lines[i], i + 1, &lists->labels[order.entries[i].number], error);
    name_index_free(&order);
    return ok;
}

static bool labels_of_list(struct tar_lists *lists, const struct tar_images_options *options, struct error *error)
{
    struct text_lines labels;
    struct names images = {0};
    if (!text_lines_read(&labels, options->labels, error))
        return false;
    bool ok = (options->classes || classes_of_labels(lists, &labels, options->labels, error)) &&
              list_tars(&images, options, take_image, labels.count, error) &&
              give_labels(lists, options, &labels, &images, error);
    free_names(&images);
    text_lines_free(&labels);
    return ok;
}

/* ---- all of it ---- */

static bool all_are_different(const struct tar_images_options *options, struct error *error)
{
    struct stat *files = calloc(options->tar_count, sizeof *files);
    bool ok = files ? true : error_runtime(error, "no memory for a list of %zu tars", options->tar_count);
    for (size_t i = 0; ok && i < options->tar_count; i++) {
        if (stat(options->tars[i], &files[i]) != 0)
            ok = error_input(error, "%s: %s", options->tars[i], strerror(errno));
        for (size_t j = 0; ok && j < i; j++)
            if (files[i].st_dev == files[j].st_dev && files[i].st_ino == files[j].st_ino)
                ok = error_input(error, "%s: is given twice", options->tars[i]);
    }
    free(files);
    return ok;
}

/* The first member tells tars of classes from images with keys. */
static bool find_kind(struct tar_lists *lists, const struct tar_images_options *options, struct error *error)
{
    struct tar_reader *reader;
    struct tar_member member;
    bool end;
    if (!tar_reader_open(&reader, options->tars[0], error))
        return false;
    bool ok = tar_reader_next(reader, &member, &end, error) &&
              (!end || error_input(error, "%s: holds no files", options->tars[0]));
    char *class_name = ok ? tar_name_class(member.name) : NULL;
    lists->kind = options->labels ? TAR_AND_LIST : class_name ? TAR_OF_TARS : TAR_OF_KEYS;
    free(class_name);
    tar_reader_close(reader);
    return ok;
}

bool tar_lists_make(struct tar_lists *lists, const struct tar_images_options *options, struct error *error)
{
    *lists = (struct tar_lists){0};
    bool ok = all_are_different(options, error) && find_kind(lists, options, error) &&
              (!options->classes || read_classes(lists, options->classes, error));
    if (ok && lists->kind == TAR_AND_LIST)
        ok = labels_of_list(lists, options, error);
    else if (ok && lists->kind == TAR_OF_TARS)
        ok = classes_of_tars(lists, options, error);
    if (!ok)
        tar_lists_free(lists);
    return ok;
}

void tar_lists_free(struct tar_lists *lists)
{
    for (size_t i = 0; lists->class_names && i < lists->classes; i++)
        free(lists->class_names[i]);
    free(lists->class_names);
    free(lists->labels);
    name_index_free(&lists->index);
    *lists = (struct tar_lists){0};
}
