/* Renumbers a dataset's labels after another's class names. */
#include "data_loaders/format/dataset_classes.h"

#include <stdlib.h>
#include <string.h>

char *dataset_class_lines(const struct dataset *dataset)
{
    size_t bytes = 1;
    for (size_t i = 0; dataset->class_names && i < dataset->classes; i++) {
        if (dataset->class_names[i][0] == '\0' || strchr(dataset->class_names[i], '\n'))
            return NULL;
        bytes += strlen(dataset->class_names[i]) + 1;
    }
    char *lines = dataset->class_names ? malloc(bytes) : NULL, *end = lines;
    for (size_t i = 0; lines && i < dataset->classes; i++) {
        end = stpcpy(end, dataset->class_names[i]);
        *end++ = '\n';
    }
    if (lines)
        *end = '\0';
    return lines;
}

/* A line and its number; ImageNet's 21,841 are looked up by their order, not one after the other. */
struct line {
    const char *start;
    size_t length;
    int32_t number;
};

static int compare_names(const struct line *a, const struct line *b)
{
    int order = memcmp(a->start, b->start, a->length < b->length ? a->length : b->length);
    return order != 0 ? order : (a->length > b->length) - (a->length < b->length);
}

/* Of two equal names the first counts. */
static int compare_lines(const void *first, const void *second)
{
    const struct line *a = first, *b = second;
    int order = compare_names(a, b);
    return order != 0 ? order : (a->number > b->number) - (a->number < b->number);
}

/* The first `classes` lines in the order of their names; *count may be less. NULL: no memory. */
static struct line *sort_lines(const char *lines, size_t classes, size_t *count)
{
    struct line *sorted = malloc(classes * sizeof *sorted);
    *count = 0;
    for (; sorted && *count < classes && *lines; ++*count) {
        size_t length = strcspn(lines, "\n");
        sorted[*count] = (struct line){lines, length, (int32_t)*count};
        lines += length + (lines[length] == '\n');
    }
    if (sorted)
        qsort(sorted, *count, sizeof *sorted, compare_lines);
    return sorted;
}

/* The number of the line that is `name`; -1 where there is none. */
static int32_t find_line(const struct line *sorted, size_t count, const char *name)
{
    const struct line wanted = {name, strlen(name), 0};
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (compare_names(&sorted[middle], &wanted) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low < count && compare_names(&sorted[low], &wanted) == 0 ? sorted[low].number : -1;
}

bool dataset_match_classes(struct dataset *dataset, const char *lines, size_t classes, const char *whose,
                           struct error *error)
{
    if (!lines || !dataset->class_names)
        return true;
    size_t count;
    int32_t *numbers = malloc(dataset->classes * sizeof *numbers);
    struct line *sorted = sort_lines(lines, classes, &count);
    bool ok = numbers && sorted ? true : error_runtime(error, "%s: no memory for the classes", dataset->path);
    for (size_t i = 0; ok && i < dataset->classes; i++) {
        numbers[i] = find_line(sorted, count, dataset->class_names[i]);
        if (numbers[i] < 0)
            ok = error_input(error, "%s: its class '%s' is not one of those of %s", dataset->path,
                             dataset->class_names[i], whose);
    }
    for (size_t i = 0; ok && i < dataset->images; i++)
        dataset->labels[i] = numbers[dataset->labels[i]];
    free(numbers);
    free(sorted);
    return ok;
}
