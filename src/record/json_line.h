/* One JSON object as one line of text, field by field in the order given: what the logs are made of. Written here and
 * not through jansson's tree because numbers should have the nine digits that a float32 needs (jansson has one
 * precision for all) and a norm record with 13 lists is made at every logged step; strings are escaped by jansson. */
#ifndef QUEST_RECORD_JSON_LINE_H
#define QUEST_RECORD_JSON_LINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct json_line {
    FILE *out;
    char *text; /* after json_line_end: the object and a newline */
    size_t bytes;
    bool failed;
};

void json_line_begin(struct json_line *line);
void json_line_whole(struct json_line *line, const char *key, int64_t value);
/* Nine significant digits; null where the number is not finite. */
void json_line_number(struct json_line *line, const char *key, double value);
void json_line_numbers(struct json_line *line, const char *key, const double *values, size_t count);
/* Seconds since 1970 to the millisecond. */
void json_line_time(struct json_line *line, const char *key);
/* Bytes that are not UTF-8 become '?'. */
void json_line_text(struct json_line *line, const char *key, const char *value);
void json_line_null(struct json_line *line, const char *key);
/* false: out of memory. */
bool json_line_end(struct json_line *line);
void json_line_free(struct json_line *line);

#endif
