/* Walks through libyaml's events and refuses what a configuration does not need. */
#include "src/config/yaml_flat.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

struct reading {
    yaml_parser_t parser;
    const char *name, *text;
    size_t text_bytes;
    struct yaml_flat *flat;
    struct error *error;
};

/* The code point at `text` and its length in bytes; 0: not UTF-8. */
static size_t decode(const unsigned char *text, size_t bytes, uint32_t *point)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t length = text[0] < 0x80 ? 1 : text[0] >> 5 == 6 ? 2 : text[0] >> 4 == 14 ? 3 : text[0] >> 3 == 30 ? 4 : 0;
    if (length == 0 || length > bytes)
        return 0;
    *point = length == 1 ? text[0] : text[0] & (0x7fu >> length);
    for (size_t i = 1; i < length; i++) {
        if (text[i] >> 6 != 2)
            return 0;
        *point = *point << 6 | (text[i] & 0x3f);
    }
    return *point < least[length] || *point > 0x10ffff ? 0 : length;
}

bool yaml_plain_text(const char *text, size_t bytes)
{
    const unsigned char *at = (const unsigned char *)text, *end = at + bytes;
    while (at < end) {
        uint32_t point = 0;
        size_t length = decode(at, (size_t)(end - at), &point);
        bool control = point < 0x20 || (point >= 0x7f && point < 0xa0);
        bool line_break = point == 0x2028 || point == 0x2029;
        bool no_character = (point >= 0xd800 && point < 0xe000) || point == 0xfeff || (point & 0xfffe) == 0xfffe;
        if (length == 0 || control || line_break || no_character)
            return false;
        at += length;
    }
    return true;
}

static size_t event_line(const yaml_event_t *event)
{
    return event->start_mark.line + 1;
}

static size_t line_of_offset(const struct reading *reading, size_t offset)
{
    size_t line = 1;
    for (size_t i = 0; i < offset && i < reading->text_bytes; i++)
        line += reading->text[i] == '\n';
    return line;
}

static bool syntax_error(struct reading *reading)
{
    const yaml_parser_t *parser = &reading->parser;
    const char *problem = parser->problem ? parser->problem : "cannot be parsed";
    if (parser->error == YAML_MEMORY_ERROR)
        return error_runtime(reading->error, "%s: out of memory while parsing", reading->name);
    if (parser->error == YAML_READER_ERROR)
        return error_input(reading->error, "%s:%zu: not UTF-8 text: %s; save the file as UTF-8", reading->name,
                           line_of_offset(reading, parser->problem_offset), problem);
    return error_input(reading->error, "%s:%zu: not valid YAML: %s%s%s (column %zu)", reading->name,
                       parser->problem_mark.line + 1, parser->context ? parser->context : "",
                       parser->context ? ", " : "", problem, parser->problem_mark.column + 1);
}

/* The next event; what no configuration needs is refused here. On false there is no event to delete. */
static bool next_event(struct reading *reading, yaml_event_t *event)
{
    if (!yaml_parser_parse(&reading->parser, event))
        return syntax_error(reading);
    const yaml_char_t *anchor = NULL, *tag = NULL;
    const char *refused = NULL;
    if (event->type == YAML_SCALAR_EVENT) {
        anchor = event->data.scalar.anchor;
        tag = event->data.scalar.tag;
    } else if (event->type == YAML_MAPPING_START_EVENT) {
        anchor = event->data.mapping_start.anchor;
        tag = event->data.mapping_start.tag;
    } else if (event->type == YAML_SEQUENCE_START_EVENT) {
        refused = "a list stands where a single value is expected";
    } else if (event->type == YAML_ALIAS_EVENT) {
        refused = "aliases (*name) are not allowed; write the value out";
    }
    if (anchor)
        refused = "anchors (&name) are not allowed; write the value out";
    else if (tag)
        refused = "tags (!name) are not allowed; write the value alone";
    if (!refused)
        return true;
    error_input(reading->error, "%s:%zu: %s", reading->name, event_line(event), refused);
    yaml_event_delete(event);
    return false;
}

static struct yaml_entry *add_entry(struct reading *reading, const char *path, size_t line)
{
    struct yaml_flat *flat = reading->flat;
    for (size_t i = 0; i < flat->count; i++)
        if (strcmp(flat->entries[i].path, path) == 0) {
            error_input(reading->error, "%s:%zu: %s is given twice (first in line %zu); remove one", reading->name,
                        line, path, flat->entries[i].line);
            return NULL;
        }
    if (flat->count == YAML_ENTRIES_MAX) {
        error_input(reading->error, "%s:%zu: more than %d keys; this is not a configuration", reading->name, line,
                    YAML_ENTRIES_MAX);
        return NULL;
    }
    struct yaml_entry *entry = &flat->entries[flat->count++];
    *entry = (struct yaml_entry){.line = line};
    memcpy(entry->path, path, strlen(path) + 1);
    return entry;
}

/* path = parent.key; `parent` may be "". */
static bool join_path(struct reading *reading, char path[YAML_PATH_MAX], const char *parent, const yaml_event_t *key)
{
    const char *text = (const char *)key->data.scalar.value;
    size_t bytes = key->data.scalar.length;
    if (bytes == 0 || !yaml_plain_text(text, bytes))
        return error_input(reading->error, "%s:%zu: a key is %s", reading->name, event_line(key),
                           bytes == 0 ? "empty" : "not plain text");
    int length = snprintf(path, YAML_PATH_MAX, "%s%s%s", parent, *parent ? "." : "", text);
    if (length < 0 || length >= YAML_PATH_MAX)
        return error_input(reading->error, "%s:%zu: a key has more than %d bytes", reading->name, event_line(key),
                           YAML_PATH_MAX - 1);
    return true;
}

static bool add_scalar(struct reading *reading, const char *path, size_t line, const yaml_event_t *value)
{
    const char *text = (const char *)value->data.scalar.value;
    size_t bytes = value->data.scalar.length;
    if (!yaml_plain_text(text, bytes))
        return error_input(reading->error, "%s:%zu: %s: the value has several lines or control characters",
                           reading->name, line, path);
    struct yaml_entry *entry = add_entry(reading, path, line);
    if (!entry)
        return false;
    entry->quoted = value->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    entry->value = strndup(text, bytes);
    return entry->value || error_runtime(reading->error, "%s: out of memory", reading->name);
}

static bool read_mapping(struct reading *reading, const char *parent, size_t depth);

/* One "key: value" whose key event has been read. */
static bool read_pair(struct reading *reading, const char *parent, size_t depth, const yaml_event_t *key)
{
    char path[YAML_PATH_MAX];
    size_t line = event_line(key);
    if (key->type != YAML_SCALAR_EVENT)
        return error_input(reading->error, "%s:%zu: a mapping stands where a key is expected", reading->name, line);
    yaml_event_t value;
    if (!join_path(reading, path, parent, key) || !next_event(reading, &value))
        return false;
    bool ok;
    if (value.type == YAML_SCALAR_EVENT) {
        ok = add_scalar(reading, path, line, &value);
    } else if (depth == YAML_DEPTH_MAX) {
        ok = error_input(reading->error, "%s:%zu: %s: sections are nested more than %d deep", reading->name, line, path,
                         YAML_DEPTH_MAX);
    } else {
        struct yaml_entry *section = add_entry(reading, path, line);
        if (section)
            section->section = true;
        ok = section && read_mapping(reading, path, depth + 1);
    }
    yaml_event_delete(&value);
    return ok;
}

/* Everything up to the end of the mapping whose start has been read. */
static bool read_mapping(struct reading *reading, const char *parent, size_t depth)
{
    for (bool ok = true; ok;) {
        yaml_event_t key;
        if (!next_event(reading, &key))
            return false;
        bool end = key.type == YAML_MAPPING_END_EVENT;
        ok = end || read_pair(reading, parent, depth, &key);
        yaml_event_delete(&key);
        if (end)
            return true;
    }
    return false;
}

/* Skips STREAM-START, DOCUMENT-START and DOCUMENT-END; leaves the first other event. */
static bool next_content(struct reading *reading, yaml_event_t *event)
{
    for (;;) {
        if (!next_event(reading, event))
            return false;
        if (event->type != YAML_STREAM_START_EVENT && event->type != YAML_DOCUMENT_START_EVENT &&
            event->type != YAML_DOCUMENT_END_EVENT)
            return true;
        yaml_event_delete(event);
    }
}

static bool read_stream(struct reading *reading)
{
    yaml_event_t event;
    if (!next_content(reading, &event))
        return false;
    yaml_event_type_t type = event.type;
    size_t line = event_line(&event);
    yaml_event_delete(&event);
    if (type == YAML_STREAM_END_EVENT)
        return error_input(reading->error, "%s: holds no configuration; see configs/ for examples", reading->name);
    if (type != YAML_MAPPING_START_EVENT)
        return error_input(reading->error, "%s:%zu: 'section: ...' is expected, not a single value", reading->name,
                           line);
    if (!read_mapping(reading, "", 1) || !next_content(reading, &event))
        return false;
    type = event.type;
    line = event_line(&event);
    yaml_event_delete(&event);
    return type == YAML_STREAM_END_EVENT ||
           error_input(reading->error, "%s:%zu: a second document begins; a configuration is one document",
                       reading->name, line);
}

bool yaml_flat_parse(struct yaml_flat *flat, const char *text, size_t text_bytes, const char *name, struct error *error)
{
    *flat = (struct yaml_flat){0};
    if (text_bytes > YAML_BYTES_MAX)
        return error_input(error, "%s: larger than %d bytes; this is not a configuration", name, YAML_BYTES_MAX);
    struct reading reading = {.name = name, .text = text, .text_bytes = text_bytes, .flat = flat, .error = error};
    flat->entries = calloc(YAML_ENTRIES_MAX, sizeof *flat->entries);
    if (!flat->entries || !yaml_parser_initialize(&reading.parser)) {
        yaml_flat_free(flat);
        return error_runtime(error, "%s: out of memory", name);
    }
    yaml_parser_set_encoding(&reading.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&reading.parser, (const unsigned char *)text, text_bytes);
    bool ok = read_stream(&reading);
    yaml_parser_delete(&reading.parser);
    if (!ok)
        yaml_flat_free(flat);
    return ok;
}

void yaml_flat_free(struct yaml_flat *flat)
{
    for (size_t i = 0; i < flat->count; i++)
        free(flat->entries[i].value);
    free(flat->entries);
    *flat = (struct yaml_flat){0};
}
