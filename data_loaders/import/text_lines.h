/* The lines of a small text file: lists of classes and of labels. */
#ifndef QUEST_DATA_LOADERS_IMPORT_TEXT_LINES_H
#define QUEST_DATA_LOADERS_IMPORT_TEXT_LINES_H

#include <stdbool.h>
#include <stddef.h>

#include "src/base/error.h"

struct text_lines {
    char *text;
    char **lines; /* [count], in text: the first word of each line */
    size_t count;
};

/* Only the first word of a line counts, so that a list of wnids may have names behind them; empty lines at the end do
 * not. ERROR_INPUT: cannot be read, over 64 MiB, holds no line, an empty one among others, or a NUL byte. */
bool text_lines_read(struct text_lines *lines, const char *path, struct error *error);
void text_lines_free(struct text_lines *lines);

/* Pairs of name and number, sorted by name, to look up a class. */
struct name_index {
    struct name_number {
        const char *name;
        size_t number;
    } * entries;
    size_t count;
};
/* Borrows the names. ERROR_INPUT: two are the same; `whose` names the list. */
bool name_index_make(struct name_index *index, char *const *names, size_t count, const char *whose,
                     struct error *error);
/* SIZE_MAX: there is none of that name. */
size_t name_index_find(const struct name_index *index, const char *name);
void name_index_free(struct name_index *index);

#endif
