/* Reads one line of a log: a flat JSON object of numbers, lists of numbers and texts, in any order of keys.
 *
 * Our own lines are read by a strict scanner, several times as fast as building jansson's tree (docs/quest-norms.md has
 * the figures); what it does not know (escapes in texts, nested values, another version's additions) is given to
 * jansson. A number that was not finite is null in the file (or NaN, Infinity: of another writer) and NaN here. */
#ifndef QUEST_RECORD_LOG_LINE_H
#define QUEST_RECORD_LOG_LINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { LOG_LINE_FIELDS = 48 };

struct log_field {
    size_t key, key_bytes; /* into text */
    size_t first, count;   /* into values: a number has count 1 */
    size_t content;        /* into text, where is_text */
    bool is_list, is_text;
};

/* Reused from line to line; zero it before the first. */
struct log_line {
    struct log_field fields[LOG_LINE_FIELDS];
    size_t field_count;
    double *values;
    size_t value_count, value_capacity;
    char *text; /* keys and texts, each ending in '\0' */
    size_t text_bytes, text_capacity;
};

/* false: not one whole JSON object (cut off, damaged), or out of memory. Other objects' unknown or nested fields are
 * left out. */
bool log_line_read(struct log_line *line, const char *text, size_t bytes);
void log_line_free(struct log_line *line);

bool log_line_has(const struct log_line *line, const char *key);
/* NaN where the field is missing, null or no number. */
double log_line_number(const struct log_line *line, const char *key);
/* NULL where the field is missing or no list; *count numbers, alive until the next line. */
const double *log_line_list(const struct log_line *line, const char *key, size_t *count);
/* NULL where the field is missing or no text. */
const char *log_line_text(const struct log_line *line, const char *key);

#endif
