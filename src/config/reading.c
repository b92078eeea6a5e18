/* A text against any schema: what is given, what it means, and where it stood for the messages. */
#include "src/config/schema.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/config/yaml_flat.h"

/* ---- messages ---- */

/* "configs/run.yaml:14: optim.lr: ", "--set optim.lr=fast: ", or "configs/run.yaml: optim.lr: " for a default. */
static bool refuse_at(const struct config_reading *reading, const struct config_place *place, const char *path)
{
    if (place->override)
        return error_prefix(reading->error, "--set %.120s", place->override);
    if (place->recipe)
        return error_prefix(reading->error, "%s: %s (of recipe %s)", reading->name, path, place->recipe);
    if (!place->given)
        return error_prefix(reading->error, "%s: %s", reading->name, path);
    return error_prefix(reading->error, "%s:%zu: %s", reading->name, place->line, path);
}

bool config_refuse(const struct config_reading *reading, const char *path, const char *format, ...)
{
    char message[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    error_input(reading->error, "%s", message);
    return config_refuse_value(reading, path);
}

bool config_refuse_value(const struct config_reading *reading, const char *path)
{
    return refuse_at(reading, &reading->places[config_key_find(reading->schema, path)], path);
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Levenshtein's distance; both at most YAML_PATH_MAX long. */
static size_t edit_distance(const char *a, const char *b)
{
    size_t row[YAML_PATH_MAX + 1], a_length = strlen(a), b_length = strlen(b);
    for (size_t j = 0; j <= b_length; j++)
        row[j] = j;
    for (size_t i = 1; i <= a_length; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b_length; j++) {
            size_t replaced = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            row[j] = least(replaced, least(row[j], row[j - 1]) + 1);
        }
    }
    return row[b_length];
}

static const char *last_name(const char *path)
{
    const char *dot = strrchr(path, '.');
    return dot ? dot + 1 : path;
}

/* The known key that was probably meant: the same name in another section, else the nearest spelling; or NULL. */
static const char *nearest_key(const struct config_schema *schema, const char *path)
{
    const char *nearest = NULL;
    size_t nearest_distance = 3 + strlen(path) / 5;
    for (size_t i = 0; i < schema->count; i++) {
        const char *candidate = schema->keys[i].path;
        size_t distance = edit_distance(path, candidate);
        if (distance > 1 && strcmp(last_name(path), last_name(candidate)) == 0)
            distance = 1;
        if (distance < nearest_distance) {
            nearest_distance = distance;
            nearest = candidate;
        }
    }
    return nearest;
}

static bool is_section(const struct config_schema *schema, const char *path)
{
    size_t length = strlen(path);
    for (size_t i = 0; i < schema->count; i++)
        if (strncmp(schema->keys[i].path, path, length) == 0 && schema->keys[i].path[length] == '.')
            return true;
    return false;
}

static bool refuse_unknown(const struct config_reading *reading, const struct config_place *place, const char *path)
{
    const char *meant = nearest_key(reading->schema, path);
    error_input(reading->error, "is not a known key%s%s%s; %s", meant ? " (did you mean " : "", meant ? meant : "",
                meant ? "?)" : "", reading->schema->reference);
    return refuse_at(reading, place, path);
}

/* ---- reading ---- */

static bool set_value(struct config_reading *reading, const struct config_place *place, const char *path,
                      const char *text, bool quoted)
{
    const struct config_schema *schema = reading->schema;
    size_t index = config_key_find(schema, path);
    if (index == schema->count && is_section(schema, path)) {
        error_input(reading->error, "is a section and takes no value of its own");
        return refuse_at(reading, place, path);
    }
    if (index == schema->count)
        return refuse_unknown(reading, place, path);
    if (!config_value_set(reading->config, &schema->keys[index], text, quoted, reading->error))
        return refuse_at(reading, place, path);
    reading->places[index] = *place;
    return true;
}

static bool apply_entry(struct config_reading *reading, const struct yaml_entry *entry)
{
    struct config_place place = {.given = true, .line = entry->line};
    const struct config_schema *schema = reading->schema;
    bool section = is_section(schema, entry->path);
    if (entry->section && config_key_find(schema, entry->path) < schema->count) {
        error_input(reading->error, "takes one value, not a section");
        return refuse_at(reading, &place, entry->path);
    }
    if (entry->section)
        return section || refuse_unknown(reading, &place, entry->path);
    if (section && !entry->quoted && !entry->value[0])
        return true; /* a section whose keys are all commented out */
    return set_value(reading, &place, entry->path, entry->value, entry->quoted);
}

static bool apply_override(struct config_reading *reading, const char *override)
{
    struct config_place place = {.given = true, .override = override};
    const char *equals = strchr(override, '=');
    size_t length = equals ? (size_t)(equals - override) : 0;
    if (!yaml_plain_text(override, strlen(override)))
        return error_input(reading->error, "--set %.*s...: is not one line of UTF-8 text",
                           (int)strspn(override, "abcdefghijklmnopqrstuvwxyz0123456789_.="), override);
    if (!equals || length == 0 || length >= YAML_PATH_MAX)
        return error_input(reading->error, "--set %.120s: key.path=value is expected, such as optim.lr=1.0e-3",
                           override);
    char path[YAML_PATH_MAX];
    snprintf(path, sizeof path, "%.*s", (int)length, override);
    size_t index = config_key_find(reading->schema, path);
    bool literal = index < reading->schema->count && reading->schema->keys[index].type == CONFIG_TEXT;
    return set_value(reading, &place, path, equals + 1, literal);
}

static bool set_defaults(struct config_reading *reading)
{
    memset(reading->config, 0, reading->schema->bytes);
    for (size_t i = 0; i < reading->schema->count; i++) {
        const struct config_key *key = &reading->schema->keys[i];
        bool text = key->type == CONFIG_TEXT;
        if (key->initial && !config_value_set(reading->config, key, key->initial, text, reading->error))
            return error_prefix(reading->error, "default of %s", key->path);
    }
    return true;
}

bool config_read(struct config_reading *reading, const char *text, size_t text_bytes, const char *const *overrides,
                 size_t override_count)
{
    struct yaml_flat flat;
    if (!set_defaults(reading) || !yaml_flat_parse(&flat, text, text_bytes, reading->name, reading->error))
        return false;
    bool ok = true;
    for (size_t i = 0; ok && i < flat.count; i++)
        ok = apply_entry(reading, &flat.entries[i]);
    yaml_flat_free(&flat);
    for (size_t i = 0; ok && i < override_count; i++)
        ok = apply_override(reading, overrides[i]);
    return ok;
}

bool config_read_file(char **text, size_t *bytes, const char *path, struct error *error)
{
    FILE *file = fopen(path, "rb");
    *text = NULL;
    *bytes = 0;
    if (!file)
        return error_input(error, "%s: %s", path, strerror(errno));
    *text = malloc(YAML_BYTES_MAX + 1);
    bool ok = *text || error_runtime(error, "%s: out of memory", path);
    *bytes = *text ? fread(*text, 1, YAML_BYTES_MAX + 1, file) : 0;
    if (ok && ferror(file))
        ok = error_input(error, "%s: cannot be read: %s", path, strerror(errno));
    fclose(file);
    return ok;
}
