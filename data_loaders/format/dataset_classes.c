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

/* The number of the line that is `name`; -1 where it is not among the first `classes`. */
static int32_t find_line(const char *lines, size_t classes, const char *name)
{
    size_t length = strlen(name);
    for (size_t i = 0; i < classes && *lines; i++) {
        size_t line = strcspn(lines, "\n");
        if (line == length && memcmp(lines, name, length) == 0)
            return (int32_t)i;
        lines += line + (lines[line] == '\n');
    }
    return -1;
}

bool dataset_match_classes(struct dataset *dataset, const char *lines, size_t classes, const char *whose,
                           struct error *error)
{
    if (!lines || !dataset->class_names)
        return true;
    int32_t *numbers = malloc(dataset->classes * sizeof *numbers);
    bool ok = numbers ? true : error_runtime(error, "%s: no memory for the classes", dataset->path);
    for (size_t i = 0; ok && i < dataset->classes; i++) {
        numbers[i] = find_line(lines, classes, dataset->class_names[i]);
        if (numbers[i] < 0)
            ok = error_input(error, "%s: its class '%s' is not one of those of %s", dataset->path,
                             dataset->class_names[i], whose);
    }
    for (size_t i = 0; ok && i < dataset->images; i++)
        dataset->labels[i] = numbers[dataset->labels[i]];
    free(numbers);
    return ok;
}
