/* YAML text -> a flat list of (key path, scalar, line), the subset of YAML that a configuration needs: one document of
 * nested mappings with scalar values. Everything else (sequences, anchors and aliases, tags, several documents, keys
 * given twice) is refused with the line, so that nothing is read in another sense than it was written in. */
#ifndef QUEST_CONFIG_YAML_FLAT_H
#define QUEST_CONFIG_YAML_FLAT_H

#include <stdbool.h>
#include <stddef.h>

#include "src/base/error.h"

enum {
    YAML_BYTES_MAX = 1 << 20, /* of a file */
    YAML_DEPTH_MAX = 8,       /* of nested mappings */
    YAML_ENTRIES_MAX = 1000,
    YAML_PATH_MAX = 256, /* bytes of a key path, with the terminating zero */
};

struct yaml_entry {
    char path[YAML_PATH_MAX]; /* "optim.lr" */
    bool section;             /* a mapping: its entries follow, value is NULL */
    bool quoted;              /* 'x' or "x": text even where it looks like a number */
    char *value;              /* of a scalar; "" for a key without a value that is not quoted */
    size_t line;              /* of the key, from 1 */
};

struct yaml_flat {
    struct yaml_entry *entries;
    size_t count;
};

/* `name` stands for the file in messages. ERROR_INPUT. */
bool yaml_flat_parse(struct yaml_flat *flat, const char *text, size_t text_bytes, const char *name,
                     struct error *error);
void yaml_flat_free(struct yaml_flat *flat);

/* One line of UTF-8 without control characters: what a message can show, and what YAML in double quotes gives back. */
bool yaml_plain_text(const char *text, size_t bytes);

#endif
