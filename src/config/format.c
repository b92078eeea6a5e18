/* The configuration as text: the resolved run as YAML, the reference of all keys as Markdown, names of enums. */
#include "src/config/schema.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Opens the sections of `path` that `before` was not in; returns how deep its last name lies. */
static int open_sections(FILE *out, const char *path, const char *before)
{
    int depth = 0;
    bool same = true;
    for (const char *start = path, *dot; (dot = strchr(start, '.')); start = dot + 1, depth++) {
        same = same && strncmp(path, before, (size_t)(dot - path) + 1) == 0;
        if (!same)
            fprintf(out, "%*s%.*s:\n", 2 * depth, "", (int)(dot - start), start);
    }
    return depth;
}

char *config_format_schema(const struct config_schema *schema, const void *config)
{
    char *text = NULL;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);
    if (!out)
        return NULL;
    fputs(schema->header, out);
    const char *before = "";
    for (size_t i = 0; i < schema->count; i++) {
        const struct config_key *key = &schema->keys[i];
        char value[2200]; /* 1023 bytes of text, each escaped */
        config_value_format(config, key, value, sizeof value);
        int depth = open_sections(out, key->path, before);
        const char *dot = strrchr(key->path, '.');
        fprintf(out, "%*s%s: %s\n", 2 * depth, "", dot ? dot + 1 : key->path, value);
        before = key->path;
    }
    if (fclose(out) != 0) {
        free(text);
        return NULL;
    }
    return text;
}

char *config_format(const struct config *config)
{
    return config_format_schema(&config_schema, config);
}

/* Text in lines of at most 110 columns, each behind two blanks: an item's second line and on. */
static void put_wrapped(FILE *out, const char *text)
{
    while (*text) {
        size_t length = strlen(text);
        if (length > 108)
            for (length = 108; length > 1 && text[length] != ' ';)
                length--;
        fprintf(out, "  %.*s\n", (int)length, text);
        text += length;
        text += strspn(text, " ");
    }
}

char *config_reference(void)
{
    char *text = NULL;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);
    if (!out)
        return NULL;
    const char *section = "";
    for (size_t i = 0; i < config_key_count; i++) {
        const struct config_key *key = &config_keys[i];
        char allowed[256];
        config_value_allowed(key, allowed, sizeof allowed);
        const char *initial = !key->initial ? "the preset's" : key->initial[0] ? key->initial : "none";
        size_t section_length = strcspn(key->path, ".") + 1;
        if (strncmp(key->path, section, section_length) != 0)
            fprintf(out, "%s### %.*s\n\n", i ? "\n" : "", (int)section_length - 1, key->path);
        section = key->path;
        fprintf(out, "- **`%s`**: %s%s%s%s; default %s\\\n", key->path, allowed, key->unit[0] ? " (" : "", key->unit,
                key->unit[0] ? ")" : "", initial);
        put_wrapped(out, key->meaning);
    }
    if (fclose(out) != 0) {
        free(text);
        return NULL;
    }
    return text;
}

const char *dtype_name(enum dtype dtype)
{
    return config_dtype_names[dtype];
}

const char *optimiser_name(enum optimiser optimiser)
{
    return config_optimiser_names[optimiser];
}
