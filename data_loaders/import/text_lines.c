/* Reads lists of words, one a line, and finds words in them. */
#include "data_loaders/import/text_lines.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LARGEST = 64 << 20 };

static bool read_text(struct text_lines *lines, size_t *bytes, const char *path, struct error *error)
{
    FILE *file = fopen(path, "re");
    size_t capacity = 1 << 16;
    bool ok = file ? true : error_input(error, "%s: %s", path, strerror(errno));
    *bytes = 0;
    while (ok) {
        char *grown = realloc(lines->text, capacity + 1);
        if (!grown) {
            ok = error_runtime(error, "%s: no memory for %zu bytes", path, capacity);
            break;
        }
        lines->text = grown;
        *bytes += fread(grown + *bytes, 1, capacity - *bytes, file);
        if (*bytes < capacity)
            break;
        if (capacity >= LARGEST)
            ok = error_input(error, "%s: is larger than %d MiB; that is no list of classes or labels", path,
                             LARGEST >> 20);
        capacity *= 2;
    }
    if (ok && ferror(file))
        ok = error_input(error, "%s: cannot be read: %s", path, strerror(errno));
    if (file)
        fclose(file);
    if (!ok)
        return false;
    lines->text[*bytes] = '\0';
    return strlen(lines->text) == *bytes ||
           error_input(error, "%s: holds a NUL byte; a text with one entry a line is expected", path);
}

static bool cut(struct text_lines *lines, size_t bytes, const char *path, struct error *error)
{
    while (bytes > 0 && strchr(" \t\r\n", lines->text[bytes - 1]))
        lines->text[--bytes] = '\0';
    if (bytes == 0)
        return error_input(error, "%s: is empty; one entry a line is expected", path);
    size_t most = 1;
    for (size_t i = 0; i < bytes; i++)
        most += lines->text[i] == '\n';
    lines->lines = malloc(most * sizeof *lines->lines);
    if (!lines->lines)
        return error_runtime(error, "%s: no memory for %zu lines", path, most);
    for (char *line = lines->text; line;) {
        char *next = strchr(line, '\n');
        if (next)
            *next++ = '\0';
        line += strspn(line, " \t\r");
        line[strcspn(line, " \t\r")] = '\0';
        if (*line == '\0')
            return error_input(error, "%s:%zu: the line is empty", path, lines->count + 1);
        lines->lines[lines->count++] = line;
        line = next;
    }
    return true;
}

bool text_lines_read(struct text_lines *lines, const char *path, struct error *error)
{
    size_t bytes;
    *lines = (struct text_lines){0};
    bool ok = read_text(lines, &bytes, path, error) && cut(lines, bytes, path, error);
    if (!ok)
        text_lines_free(lines);
    return ok;
}

void text_lines_free(struct text_lines *lines)
{
    free(lines->text);
    free(lines->lines);
    *lines = (struct text_lines){0};
}

/* ---- looking up ---- */

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct name_number *)a)->name, ((const struct name_number *)b)->name);
}

bool name_index_make(struct name_index *index, char *const *names, size_t count, const char *whose, struct error *error)
{
    *index = (struct name_index){malloc((count ? count : 1) * sizeof *index->entries), count};
    if (!index->entries)
        return error_runtime(error, "%s: no memory for %zu names", whose, count);
    for (size_t i = 0; i < count; i++)
        index->entries[i] = (struct name_number){names[i], i};
    qsort(index->entries, count, sizeof *index->entries, by_name);
    for (size_t i = 0; i + 1 < count; i++)
        if (strcmp(index->entries[i].name, index->entries[i + 1].name) == 0) {
            error_input(error, "%s: '%.100s' is there twice", whose, index->entries[i].name);
            name_index_free(index);
            return false;
        }
    return true;
}

size_t name_index_find(const struct name_index *index, const char *name)
{
    const struct name_number wanted = {name, 0};
    const struct name_number *found =
        index->count ? bsearch(&wanted, index->entries, index->count, sizeof wanted, by_name) : NULL;
    return found ? found->number : SIZE_MAX;
}

void name_index_free(struct name_index *index)
{
    free(index->entries);
    *index = (struct name_index){0};
}
