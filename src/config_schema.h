/* The schema: one row a key. Reading, checking, writing and documenting a configuration all walk this table, so a new
 * key is one field in struct config and one row in config_schema.c. Internal to src/config*.c. */
#ifndef QUEST_CONFIG_SCHEMA_H
#define QUEST_CONFIG_SCHEMA_H

#include <stdbool.h>
#include <stddef.h>

#include "src/config.h"

enum config_type { CONFIG_INTEGER, CONFIG_REAL, CONFIG_BOOLEAN, CONFIG_TEXT, CONFIG_CHOICE };

struct config_key {
    const char *path;
    enum config_type type;
    size_t offset, bytes;     /* of the field in struct config */
    const char *initial;      /* the default as YAML text; NULL: the preset gives it */
    double minimum, maximum;  /* numbers; a maximum of 0 stands for none */
    bool above, below;        /* minimum, maximum themselves are not allowed */
    const char *const *names; /* choices, in the order of the enum, NULL at the end */
    const char *unit;         /* "" = a plain number */
    const char *meaning;      /* one sentence without a full stop */
};

extern const struct config_key config_keys[];
extern const size_t config_key_count;
enum { CONFIG_KEYS_MAX = 128 };

/* Index into config_keys, or config_key_count. */
size_t config_key_find(const char *path);

extern const char *const config_attention_names[], *const config_dtype_names[];

/* What is allowed, for messages and the reference: "a positive real number", "one of fp32, bf16". */
void config_value_allowed(const struct config_key *key, char *text, size_t text_bytes);
/* Converts and checks. The error message has neither place nor key: the caller puts them in front. */
bool config_value_set(struct config *config, const struct config_key *key, const char *text, bool quoted,
                      struct error *error);
/* The value as YAML that config_value_set reads back to the same value. */
void config_value_format(const struct config *config, const struct config_key *key, char *text, size_t text_bytes);

/* Where each value came from, for messages about relations between keys. */
struct config_place {
    bool given;
    const char *override; /* the --set text, or NULL */
    size_t line;          /* of the file */
};
struct config_reading {
    struct config *config;
    const char *name; /* of the file */
    struct config_place places[CONFIG_KEYS_MAX];
    struct error *error;
};
/* "configs/run.yaml:14: optim.lr: " in front of a message about `path`; returns false, ERROR_INPUT. */
bool config_refuse(const struct config_reading *reading, const char *path, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Relations between keys. */
bool config_check_model(const struct config_reading *reading);
bool config_check_run(const struct config_reading *reading);

#endif
