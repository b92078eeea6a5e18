/* Reads one JSON line: a scanner for our own lines, jansson for whatever it does not know. */
#include "src/record/log_line.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- what a line is read into ---- */

static bool push_value(struct log_line *line, double value)
{
    if (line->value_count == line->value_capacity) {
        size_t capacity = line->value_capacity ? 2 * line->value_capacity : 256;
        double *values = realloc(line->values, capacity * sizeof *values);
        if (!values)
            return false;
        line->values = values;
        line->value_capacity = capacity;
    }
    line->values[line->value_count++] = value;
    return true;
}

static bool push_text(struct log_line *line, const char *text, size_t bytes, size_t *at)
{
    if (line->text_bytes + bytes + 1 > line->text_capacity) {
        size_t capacity = 2 * (line->text_bytes + bytes + 512);
        char *grown = realloc(line->text, capacity);
        if (!grown)
            return false;
        line->text = grown;
        line->text_capacity = capacity;
    }
    *at = line->text_bytes;
    memcpy(line->text + *at, text, bytes);
    line->text[*at + bytes] = '\0';
    line->text_bytes += bytes + 1;
    return true;
}

static struct log_field *push_field(struct log_line *line, const char *key, size_t bytes)
{
    if (line->field_count == LOG_LINE_FIELDS)
        return NULL;
    struct log_field *field = &line->fields[line->field_count];
    *field = (struct log_field){.key_bytes = bytes, .first = line->value_count};
    if (!push_text(line, key, bytes, &field->key))
        return NULL;
    line->field_count++;
    return field;
}

static void clear(struct log_line *line)
{
    line->field_count = line->value_count = line->text_bytes = 0;
}

/* ---- the scanner of our own lines ---- */

static const double powers_of_ten[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                       1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

/* A JSON number. Up to 15 digits and a power of ten up to 22 make the product or quotient of two exactly represented
 * numbers, which is correctly rounded (Clinger 1990); strtod takes the rest. */
static const char *scan_number(const char *at, const char *end, double *value)
{
    const char *begin = at;
    bool negative = at < end && *at == '-';
    at += negative;
    uint64_t digits = 0;
    int count = 0, exponent = 0;
    const char *first = at;
    for (; at < end && *at >= '0' && *at <= '9'; at++, count++)
        digits = digits * 10 + (uint64_t)(*at - '0');
    if (at == first)
        return NULL;
    if (at < end && *at == '.')
        for (at++; at < end && *at >= '0' && *at <= '9'; at++, count++, exponent--)
            digits = digits * 10 + (uint64_t)(*at - '0');
    if (at < end && (*at == 'e' || *at == 'E')) {
        bool below = ++at < end && *at == '-';
        at += at < end && (*at == '-' || *at == '+');
        int power = 0;
        for (; at < end && *at >= '0' && *at <= '9' && power < 1000; at++)
            power = power * 10 + (*at - '0');
        exponent += below ? -power : power;
    }
    if (count <= 15 && exponent >= -22 && exponent <= 22) {
        double exact = (double)digits;
        *value = exponent < 0 ? exact / powers_of_ten[-exponent] : exact * powers_of_ten[exponent];
        *value = negative ? -*value : *value;
        return at;
    }
    char *stop; /* the caller's text goes on after the number, so strtod stops by itself */
    *value = strtod(begin, &stop);
    return stop == at ? at : NULL;
}

static const char *scan_value(struct log_line *line, const char *at, const char *end)
{
    /* The last three are no JSON, but what Python's json writes. */
    static const char *const not_finite[] = {"null", "NaN", "Infinity", "-Infinity"};
    double value = NAN;
    const char *after = NULL;
    for (size_t i = 0; !after && i < sizeof not_finite / sizeof *not_finite; i++) {
        size_t bytes = strlen(not_finite[i]);
        if ((size_t)(end - at) >= bytes && memcmp(at, not_finite[i], bytes) == 0)
            after = at + bytes;
    }
    after = after ? after : scan_number(at, end, &value);
    return after && push_value(line, value) ? after : NULL;
}

static const char *skip_blanks(const char *at, const char *end)
{
    while (at < end && (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r'))
        at++;
    return at;
}

static const char *scan_list(struct log_line *line, const char *at, const char *end)
{
    at = skip_blanks(at, end);
    if (at < end && *at == ']')
        return at + 1;
    for (;;) {
        at = scan_value(line, skip_blanks(at, end), end);
        if (!at)
            return NULL;
        at = skip_blanks(at, end);
        if (at == end || (*at != ',' && *at != ']'))
            return NULL;
        if (*at++ == ']')
            return at;
    }
}

/* The end of a text without escapes, or NULL. */
static const char *scan_text(const char *at, const char *end)
{
    while (at < end && *at != '"' && *at != '\\' && (unsigned char)*at >= ' ')
        at++;
    return at < end && *at == '"' ? at : NULL;
}

static const char *scan_field(struct log_line *line, const char *at, const char *end)
{
    const char *stop;
    if (at == end || *at++ != '"' || !(stop = scan_text(at, end)))
        return NULL;
    struct log_field *field = push_field(line, at, (size_t)(stop - at));
    at = skip_blanks(stop + 1, end);
    if (!field || at == end || *at++ != ':')
        return NULL;
    at = skip_blanks(at, end);
    if (at < end && *at == '"') {
        field->is_text = true;
        stop = scan_text(++at, end);
        return stop && push_text(line, at, (size_t)(stop - at), &field->content) ? stop + 1 : NULL;
    }
    field->is_list = at < end && *at == '[';
    at = field->is_list ? scan_list(line, at + 1, end) : scan_value(line, at, end);
    field->count = line->value_count - field->first;
    return at;
}

static bool scan(struct log_line *line, const char *at, const char *end)
{
    at = skip_blanks(at, end);
    if (at == end || *at++ != '{')
        return false;
    for (;;) {
        at = scan_field(line, skip_blanks(at, end), end);
        if (!at)
            return false;
        at = skip_blanks(at, end);
        if (at == end || (*at != ',' && *at != '}'))
            return false;
        if (*at++ == '}')
            return skip_blanks(at, end) == end;
    }
}

/* ---- anything else, through jansson ---- */

static bool take_list(struct log_line *line, struct log_field *field, const json_t *value)
{
    field->is_list = true;
    for (size_t i = 0; i < json_array_size(value); i++) {
        const json_t *item = json_array_get(value, i);
        if (!push_value(line, json_is_number(item) ? json_number_value(item) : NAN))
            return false;
    }
    field->count = line->value_count - field->first;
    return true;
}

static bool take(struct log_line *line, const char *key, const json_t *value)
{
    if (json_is_object(value) || line->field_count == LOG_LINE_FIELDS)
        return true;
    struct log_field *field = push_field(line, key, strlen(key));
    if (!field)
        return false;
    if (json_is_array(value))
        return take_list(line, field, value);
    field->is_text = json_is_string(value);
    if (field->is_text)
        return push_text(line, json_string_value(value), json_string_length(value), &field->content);
    field->count = 1;
    return push_value(line, json_is_number(value) ? json_number_value(value) : NAN);
}

static bool read_any(struct log_line *line, const char *text, size_t bytes)
{
    json_t *object = json_loadb(text, bytes, 0, NULL);
    bool ok = json_is_object(object);
    const char *key;
    json_t *value;
    if (ok)
        json_object_foreach(object, key, value) ok = ok && take(line, key, value);
    json_decref(object);
    return ok;
}

bool log_line_read(struct log_line *line, const char *text, size_t bytes)
{
    clear(line);
    if (scan(line, text, text + bytes))
        return true;
    clear(line);
    return read_any(line, text, bytes);
}

void log_line_free(struct log_line *line)
{
    free(line->values);
    free(line->text);
    *line = (struct log_line){0};
}

/* ---- fields ---- */

static const struct log_field *find(const struct log_line *line, const char *key)
{
    size_t bytes = strlen(key);
    for (size_t i = 0; i < line->field_count; i++) {
        const struct log_field *field = &line->fields[i];
        if (field->key_bytes == bytes && memcmp(line->text + field->key, key, bytes) == 0)
            return field;
    }
    return NULL;
}

bool log_line_has(const struct log_line *line, const char *key)
{
    return find(line, key) != NULL;
}

double log_line_number(const struct log_line *line, const char *key)
{
    const struct log_field *field = find(line, key);
    return field && !field->is_list && !field->is_text && field->count == 1 ? line->values[field->first] : NAN;
}

const double *log_line_list(const struct log_line *line, const char *key, size_t *count)
{
    const struct log_field *field = find(line, key);
    if (!field || !field->is_list)
        return NULL;
    *count = field->count;
    return line->values + field->first;
}

const char *log_line_text(const struct log_line *line, const char *key)
{
    const struct log_field *field = find(line, key);
    return field && field->is_text ? line->text + field->content : NULL;
}
