/* One value: YAML text to a field of struct config and back. Stricter than YAML 1.1, which reads 010 as 8, 1:30 as 90
 * and 1e-3 as text: a number is what C's strtod and strtoll take whole in decimal, and nothing else. */
#include "src/config/schema.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static void append(char *text, size_t text_bytes, const char *more)
{
    size_t used = strlen(text);
    snprintf(text + used, text_bytes - used, "%s", more);
}

static void list_names(const char *const *names, char *text, size_t text_bytes)
{
    for (size_t i = 0; names[i]; i++) {
        append(text, text_bytes, i ? ", " : "");
        append(text, text_bytes, names[i]);
    }
}

static void allowed_number(const struct config_key *key, const char *noun, char *text, size_t text_bytes)
{
    char maximum[64] = "";
    if (key->maximum != 0)
        snprintf(maximum, sizeof maximum, "%s%.16g", key->below ? "below " : "", key->maximum);
    if (key->above && key->minimum == 0)
        snprintf(text, text_bytes, "a positive %s%s%s", noun, maximum[0] ? " up to " : "", maximum);
    else if (maximum[0])
        snprintf(text, text_bytes, "a %s from %.16g to %s", noun, key->minimum, maximum);
    else
        snprintf(text, text_bytes, "a %s of at least %.16g", noun, key->minimum);
}

void config_value_allowed(const struct config_key *key, char *text, size_t text_bytes)
{
    text[0] = '\0';
    switch (key->type) {
    case CONFIG_INTEGER:
        allowed_number(key, "whole number", text, text_bytes);
        break;
    case CONFIG_REAL:
        allowed_number(key, "real number", text, text_bytes);
        break;
    case CONFIG_BOOLEAN:
        append(text, text_bytes, "true or false");
        break;
    case CONFIG_TEXT:
        append(text, text_bytes, "text");
        break;
    case CONFIG_CHOICE:
        append(text, text_bytes, key->names[1] ? "one of " : "");
        list_names(key->names, text, text_bytes);
        break;
    }
}

/* "(... is expected, such as 1.0e-3)" */
static bool refuse(const struct config_key *key, const char *problem, const char *text, struct error *error)
{
    char allowed[256], example[80] = "";
    config_value_allowed(key, allowed, sizeof allowed);
    bool number = key->type == CONFIG_INTEGER || key->type == CONFIG_REAL;
    if (number && key->initial && strtod(key->initial, NULL) != 0)
        snprintf(example, sizeof example, ", such as %s", key->initial);
    return error_input(error, "'%.80s' %s (%s is expected%s)", text, problem, allowed, example);
}

/* Decimal digits with an optional sign, point and exponent; `point` = a fraction or exponent is allowed. */
static bool is_number(const char *text, bool point)
{
    const char *at = text + (*text == '-' || *text == '+');
    const char *digits = at;
    at += strspn(at, "0123456789");
    size_t count = (size_t)(at - digits);
    if (count > 1 && digits[0] == '0')
        return false; /* octal to some readers */
    if (point && *at == '.') {
        size_t fraction = strspn(++at, "0123456789");
        count += fraction;
        at += fraction;
    }
    if (count == 0)
        return false;
    if (point && (*at == 'e' || *at == 'E')) {
        at += 1 + (at[1] == '-' || at[1] == '+');
        size_t exponent = strspn(at, "0123456789");
        if (exponent == 0)
            return false;
        at += exponent;
    }
    return *at == '\0';
}

static bool in_range(const struct config_key *key, double value)
{
    if (value < key->minimum || (key->above && value == key->minimum))
        return false;
    return key->maximum == 0 || value < key->maximum || (value == key->maximum && !key->below);
}

static bool set_number(char *field, const struct config_key *key, const char *text, struct error *error)
{
    bool real = key->type == CONFIG_REAL;
    if (!is_number(text, real))
        return refuse(key, real ? "is not a number" : "is not a whole number", text, error);
    double value = strtod(text, NULL);
    if (!isfinite(value) || !in_range(key, value))
        return refuse(key, "is out of range", text, error);
    if (real) {
        memcpy(field, &value, sizeof value);
    } else { /* exact: no range goes beyond 2^53 */
        int64_t whole = strtoll(text, NULL, 10);
        memcpy(field, &whole, sizeof whole);
    }
    return true;
}

static bool set_boolean(char *field, const struct config_key *key, const char *text, struct error *error)
{
    static const char *const words[] = {"false", "true", "no", "yes", "off", "on"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strcasecmp(text, words[i]) == 0) {
            bool value = i % 2;
            memcpy(field, &value, sizeof value);
            return true;
        }
    return refuse(key, "is neither true nor false", text, error);
}

static bool set_choice(char *field, const struct config_key *key, const char *text, struct error *error)
{
    for (unsigned i = 0; key->names[i]; i++)
        if (strcmp(text, key->names[i]) == 0) {
            memcpy(field, &i, sizeof i); /* enums without negative values are unsigned in GCC and Clang */
            return true;
        }
    return refuse(key, "is not known", text, error);
}

bool config_value_set(void *config, const struct config_key *key, const char *text, bool quoted, struct error *error)
{
    char *field = (char *)config + key->offset;
    if (!quoted && (!*text || strcmp(text, "~") == 0 || strcasecmp(text, "null") == 0))
        return error_input(error, "has no value; leave the key out for its default%s",
                           key->type == CONFIG_TEXT ? ", or write \"\" for none" : "");
    if (quoted && (key->type == CONFIG_INTEGER || key->type == CONFIG_REAL || key->type == CONFIG_BOOLEAN))
        return refuse(key, "is in quotes, which makes it text", text, error);
    switch (key->type) {
    case CONFIG_INTEGER:
    case CONFIG_REAL:
        return set_number(field, key, text, error);
    case CONFIG_BOOLEAN:
        return set_boolean(field, key, text, error);
    case CONFIG_CHOICE:
        return set_choice(field, key, text, error);
    case CONFIG_TEXT:
        break;
    }
    if (strlen(text) >= key->bytes)
        return error_input(error, "is longer than %zu bytes", key->bytes - 1);
    strncpy(field, text, key->bytes); /* the rest becomes zeros */
    return true;
}

/* The shortest text that reads back as the same number, with a point: YAML 1.1 takes 1e-3 for text. */
static void format_real(double value, char *text, size_t text_bytes)
{
    char digits[40];
    if (value == floor(value) && fabs(value) < 1e15) {
        snprintf(text, text_bytes, "%.1f", value);
        return;
    }
    for (int precision = 1; precision <= 17; precision++) {
        snprintf(digits, sizeof digits, "%.*g", precision, value);
        if (strtod(digits, NULL) == value)
            break;
    }
    size_t mantissa = strcspn(digits, "e");
    bool point = memchr(digits, '.', mantissa) != NULL;
    snprintf(text, text_bytes, "%.*s%s%s", (int)mantissa, digits, point ? "" : ".0", digits + mantissa);
}

static void format_text(const char *value, char *text, size_t text_bytes)
{
    size_t used = 0;
    text[used++] = '"';
    for (; *value && used + 4 < text_bytes; value++) {
        if (*value == '"' || *value == '\\')
            text[used++] = '\\';
        text[used++] = *value;
    }
    text[used++] = '"';
    text[used] = '\0';
}

void config_value_format(const void *config, const struct config_key *key, char *text, size_t text_bytes)
{
    const char *field = (const char *)config + key->offset;
    int64_t whole;
    double real;
    bool boolean;
    unsigned choice;
    switch (key->type) {
    case CONFIG_INTEGER:
        memcpy(&whole, field, sizeof whole);
        snprintf(text, text_bytes, "%lld", (long long)whole);
        break;
    case CONFIG_REAL:
        memcpy(&real, field, sizeof real);
        format_real(real, text, text_bytes);
        break;
    case CONFIG_BOOLEAN:
        memcpy(&boolean, field, sizeof boolean);
        snprintf(text, text_bytes, "%s", boolean ? "true" : "false");
        break;
    case CONFIG_CHOICE:
        memcpy(&choice, field, sizeof choice);
        snprintf(text, text_bytes, "%s", key->names[choice]);
        break;
    case CONFIG_TEXT:
        format_text(field, text, text_bytes);
        break;
    }
}
