/* Prints one JSON object into memory. */
#include "src/record/json_line.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

void json_line_begin(struct json_line *line)
{
    *line = (struct json_line){0};
    line->out = open_memstream(&line->text, &line->bytes);
    line->failed = line->out == NULL || fputc('{', line->out) == EOF;
}

static bool begin_field(struct json_line *line, const char *key)
{
    if (line->failed || fprintf(line->out, "%s\"%s\":", ftell(line->out) > 1 ? "," : "", key) < 0)
        line->failed = true;
    return !line->failed;
}

static void write_number(struct json_line *line, double value)
{
    line->failed |= (isfinite(value) ? fprintf(line->out, "%.9g", value) : fputs("null", line->out)) < 0;
}

void json_line_whole(struct json_line *line, const char *key, int64_t value)
{
    if (begin_field(line, key))
        line->failed |= fprintf(line->out, "%lld", (long long)value) < 0;
}

void json_line_number(struct json_line *line, const char *key, double value)
{
    if (begin_field(line, key))
        write_number(line, value);
}

void json_line_numbers(struct json_line *line, const char *key, const double *values, size_t count)
{
    if (!begin_field(line, key))
        return;
    for (size_t i = 0; i < count; i++) {
        line->failed |= fputc(i ? ',' : '[', line->out) == EOF;
        write_number(line, values[i]);
    }
    line->failed |= fputs(count ? "]" : "[]", line->out) < 0;
}

void json_line_time(struct json_line *line, const char *key)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (begin_field(line, key))
        line->failed |= fprintf(line->out, "%lld.%03ld", (long long)now.tv_sec, now.tv_nsec / 1000000) < 0;
}

void json_line_text(struct json_line *line, const char *key, const char *value)
{
    if (!begin_field(line, key))
        return;
    json_t *text = json_string(value);
    if (!text) {
        char *ascii = strdup(value);
        for (char *at = ascii; at && *at; at++)
            if ((unsigned char)*at >= 0x80)
                *at = '?';
        text = ascii ? json_string(ascii) : NULL;
        free(ascii);
    }
    line->failed |= !text || json_dumpf(text, line->out, JSON_ENCODE_ANY) != 0;
    json_decref(text);
}

void json_line_null(struct json_line *line, const char *key)
{
    if (begin_field(line, key))
        line->failed |= fputs("null", line->out) < 0;
}

bool json_line_end(struct json_line *line)
{
    if (!line->failed)
        line->failed |= fputs("}\n", line->out) < 0;
    if (line->out && fclose(line->out) != 0)
        line->failed = true;
    line->out = NULL;
    return !line->failed;
}

void json_line_free(struct json_line *line)
{
    free(line->text);
    *line = (struct json_line){0};
}
