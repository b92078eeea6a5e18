/* The schema: one row a key. Reading, checking, writing and documenting a configuration all walk this table, so a new
 * key is one field in struct config and one row in schema.c. The same code reads any struct that has such a
 * table (struct config_schema); internal to src/config and the configurations of experiments. */
#ifndef QUEST_CONFIG_SCHEMA_H
#define QUEST_CONFIG_SCHEMA_H

#include <stdbool.h>
#include <stddef.h>

#include "src/config/config.h"

enum config_type { CONFIG_INTEGER, CONFIG_REAL, CONFIG_BOOLEAN, CONFIG_TEXT, CONFIG_CHOICE };

struct config_key {
    const char *path;
    enum config_type type;
    size_t offset, bytes;     /* of the field in the struct */
    const char *initial;      /* the default as YAML text; NULL: the preset gives it */
    double minimum, maximum;  /* numbers; a maximum of 0 stands for none */
    bool above, below;        /* minimum, maximum themselves are not allowed */
    const char *const *names; /* choices, in the order of the enum, NULL at the end */
    const char *unit;         /* "" = a plain number */
    const char *meaning;      /* one sentence without a full stop */
};

extern const struct config_key config_keys[];
extern const size_t config_key_count;
enum { CONFIG_KEYS_MAX = 192 };

/* A table of keys and the struct that it describes. */
struct config_schema {
    const struct config_key *keys;
    size_t count, bytes;   /* keys, at most CONFIG_KEYS_MAX; of the struct */
    const char *reference; /* where a user finds the keys listed */
    const char *header;    /* the first line of a configuration that is written, a comment */
};
extern const struct config_schema config_schema; /* of struct config */

/* Index into the schema's keys, or their count. */
size_t config_key_find(const struct config_schema *schema, const char *path);

extern const char *const config_dtype_names[], *const config_optimiser_names[];
extern const char *const config_recipe_names[]; /* in the order of enum recipe_name, NULL at the end */

/* What is allowed, for messages and the reference: "a positive real number", "one of fp32, bf16". */
void config_value_allowed(const struct config_key *key, char *text, size_t text_bytes);
/* Converts and checks. The error message has neither place nor key: the caller puts them in front. */
bool config_value_set(void *config, const struct config_key *key, const char *text, bool quoted, struct error *error);
/* The value as YAML that config_value_set reads back to the same value. */
void config_value_format(const void *config, const struct config_key *key, char *text, size_t text_bytes);
/* The whole struct as YAML. Caller frees; NULL where memory is short. */
char *config_format_schema(const struct config_schema *schema, const void *config);

/* Where each value came from, for messages about relations between keys. */
struct config_place {
    bool given;
    const char *override; /* the --set text, or NULL */
    const char *recipe;   /* that gave it, or NULL */
    size_t line;          /* of the file */
};
struct config_reading {
    const struct config_schema *schema;
    void *config;
    const char *name; /* of the file */
    struct config_place places[CONFIG_KEYS_MAX];
    struct error *error;
};
/* "configs/run.yaml:14: optim.lr: " in front of a message about `path`; returns false, ERROR_INPUT. */
bool config_refuse(const struct config_reading *reading, const char *path, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* The same, in front of the message that a lower layer has written. */
bool config_refuse_value(const struct config_reading *reading, const char *path);
/* Defaults, then what the text gives, then the overrides ("key.path=value"). ERROR_INPUT with file, line and key. */
bool config_read(struct config_reading *reading, const char *text, size_t text_bytes, const char *const *overrides,
                 size_t override_count);
/* A configuration file as text, at most YAML_BYTES_MAX + 1 bytes of it. Caller frees. */
bool config_read_file(char **text, size_t *bytes, const char *path, struct error *error);

/* Relations between keys. */
bool config_check_model(const struct config_reading *reading);
bool config_check_run(const struct config_reading *reading);
bool config_check_recipe(const struct config_reading *reading); /* a part of the one above */

#endif
