/* Choices of products as lines of JSON, both ways. */
#include "kernels/products.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const epilogue_names[] = {"none", "bias", "column_sums"};
static const char *const way_names[] = {"library", "parts", "general"};
static const char *const dtype_names[] = {"fp32", "bf16"};

#define COUNT(names) (sizeof(names) / sizeof *(names))

const char *product_epilogue_name(enum product_epilogue epilogue)
{
    return epilogue_names[epilogue];
}

const char *product_way_name(enum product_way way)
{
    return way_names[way];
}

/* ---- writing ---- */

static json_t *hexadecimal(const unsigned char *bytes, size_t count)
{
    static const char digits[] = "0123456789abcdef";
    char text[2 * PRODUCT_ALGORITHM_BYTES];
    for (size_t i = 0; i < count; i++) {
        text[2 * i] = digits[bytes[i] >> 4];
        text[2 * i + 1] = digits[bytes[i] & 15];
    }
    return json_stringn(text, 2 * count);
}

static json_t *microseconds(double seconds)
{
    return seconds > 0 ? json_real(1e6 * seconds) : json_null();
}

char *product_choice_format(const struct product_choice *choice, const char *identity)
{
    const struct product *p = &choice->product;
    json_t *line = json_pack(
        "{s:s%, s:I, s:I, s:I, s:b, s:b, s:s, s:s, s:b, s:s, s:[i,i,i,i], s:s, s:b, s:o, s:i, s:i, s:i, s:i, s:f, "
        "s:I, s:i, s:i, s:o, s:o}",
        "for", identity, strlen(identity), "m", (json_int_t)p->m, "n", (json_int_t)p->n, "k", (json_int_t)p->k,
        "transpose_a", (int)p->transpose_a, "transpose_b", (int)p->transpose_b, "in", dtype_names[p->dtype_in], "out",
        dtype_names[p->dtype_out], "accumulate", (int)p->accumulate, "epilogue", epilogue_names[p->epilogue],
        "alignment", (int)p->align_a, (int)p->align_b, (int)p->align_d, (int)p->align_bias, "way",
        way_names[choice->way], "tuned", (int)choice->tuned, "algorithm",
        hexadecimal(choice->algorithm, sizeof choice->algorithm), "id", (int)choice->id, "tile", (int)choice->tile,
        "stages", (int)choice->stages, "split_k", (int)choice->split_k, "waves", choice->waves, "workspace_bytes",
        (json_int_t)choice->workspace_bytes, "offered", (int)choice->offered, "refused", (int)choice->refused,
        "time_us", microseconds(choice->time_s), "first_us", microseconds(choice->first_s));
    char *text = line ? json_dumps(line, JSON_COMPACT | JSON_REAL_PRECISION(6)) : NULL;
    json_decref(line);
    return text;
}

/* ---- reading ---- */

/* Takes fields until one is not as it must be; `wrong` is its name. */
struct reading {
    const json_t *object;
    const char *wrong;
};

static int64_t whole(struct reading *reading, const json_t *value, const char *name, int64_t least, int64_t most)
{
    if (json_is_integer(value) && json_integer_value(value) >= least && json_integer_value(value) <= most)
        return json_integer_value(value);
    reading->wrong = reading->wrong ? reading->wrong : name;
    return least;
}

static int64_t whole_field(struct reading *reading, const char *name, int64_t least, int64_t most)
{
    return whole(reading, json_object_get(reading->object, name), name, least, most);
}

static bool flag(struct reading *reading, const char *name)
{
    const json_t *value = json_object_get(reading->object, name);
    if (!json_is_boolean(value))
        reading->wrong = reading->wrong ? reading->wrong : name;
    return json_is_true(value);
}

static uint32_t choice_of(struct reading *reading, const char *name, const char *const *names, size_t count)
{
    const char *value = json_string_value(json_object_get(reading->object, name));
    for (size_t i = 0; value && i < count; i++)
        if (strcmp(value, names[i]) == 0)
            return (uint32_t)i;
    reading->wrong = reading->wrong ? reading->wrong : name;
    return 0;
}

/* Not negative; null, where that is allowed, stands for 0. */
static double real(struct reading *reading, const char *name, bool or_null)
{
    const json_t *value = json_object_get(reading->object, name);
    double number = json_number_value(value);
    if (!(or_null && json_is_null(value)) && !(json_is_number(value) && number >= 0 && isfinite(number)))
        reading->wrong = reading->wrong ? reading->wrong : name;
    return number;
}

static int digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static void read_algorithm(struct reading *reading, unsigned char bytes[PRODUCT_ALGORITHM_BYTES])
{
    const json_t *value = json_object_get(reading->object, "algorithm");
    const char *text = json_string_value(value);
    bool ok = text && json_string_length(value) == 2 * PRODUCT_ALGORITHM_BYTES;
    for (size_t i = 0; ok && i < PRODUCT_ALGORITHM_BYTES; i++) {
        int high = digit(text[2 * i]), low = digit(text[2 * i + 1]);
        ok = high >= 0 && low >= 0;
        bytes[i] = ok ? (unsigned char)(16 * high + low) : 0;
    }
    if (!ok)
        reading->wrong = reading->wrong ? reading->wrong : "algorithm";
}

static uint32_t alignment(struct reading *reading, size_t index)
{
    const json_t *list = json_object_get(reading->object, "alignment");
    int64_t bytes = whole(reading, json_array_get(list, index), "alignment", 1, 16);
    if ((bytes & (bytes - 1)) != 0)
        reading->wrong = reading->wrong ? reading->wrong : "alignment";
    return (uint32_t)bytes;
}

static struct product read_product(struct reading *reading)
{
    return (struct product){
        .m = (uint64_t)whole_field(reading, "m", 1, INT32_MAX),
        .n = (uint64_t)whole_field(reading, "n", 1, INT32_MAX),
        .k = (uint64_t)whole_field(reading, "k", 1, INT32_MAX),
        .transpose_a = flag(reading, "transpose_a"),
        .transpose_b = flag(reading, "transpose_b"),
        .dtype_in = choice_of(reading, "in", dtype_names, COUNT(dtype_names)),
        .dtype_out = choice_of(reading, "out", dtype_names, COUNT(dtype_names)),
        .accumulate = flag(reading, "accumulate"),
        .epilogue = choice_of(reading, "epilogue", epilogue_names, COUNT(epilogue_names)),
        .align_a = alignment(reading, 0),
        .align_b = alignment(reading, 1),
        .align_d = alignment(reading, 2),
        .align_bias = alignment(reading, 3),
    };
}

static void read_choice(struct reading *reading, struct product_choice *choice)
{
    choice->product = read_product(reading);
    choice->way = (enum product_way)choice_of(reading, "way", way_names, COUNT(way_names));
    choice->tuned = flag(reading, "tuned");
    read_algorithm(reading, choice->algorithm);
    choice->id = (int32_t)whole_field(reading, "id", -1, INT32_MAX);
    choice->tile = (int32_t)whole_field(reading, "tile", -1, INT32_MAX);
    choice->stages = (int32_t)whole_field(reading, "stages", -1, INT32_MAX);
    choice->split_k = (int32_t)whole_field(reading, "split_k", -1, INT32_MAX);
    choice->waves = real(reading, "waves", false);
    choice->workspace_bytes = (uint64_t)whole_field(reading, "workspace_bytes", 0, INT64_MAX);
    choice->offered = (int32_t)whole_field(reading, "offered", 0, INT32_MAX);
    choice->refused = (int32_t)whole_field(reading, "refused", 0, INT32_MAX);
    choice->time_s = 1e-6 * real(reading, "time_us", true);
    choice->first_s = 1e-6 * real(reading, "first_us", true);
}

bool product_choice_read(struct product_choice *choice, char identity[PRODUCTS_IDENTITY_BYTES], const char *line,
                         size_t line_bytes, struct error *error)
{
    json_error_t problem;
    json_t *object = json_loadb(line, line_bytes, JSON_REJECT_DUPLICATES, &problem);
    *choice = (struct product_choice){0};
    if (!json_is_object(object)) {
        json_decref(object);
        return error_input(error, "not a JSON object: %.100s", object ? "it is something else" : problem.text);
    }
    struct reading reading = {.object = object};
    const json_t *name = json_object_get(object, "for");
    if (json_is_string(name) && json_string_length(name) < PRODUCTS_IDENTITY_BYTES)
        memcpy(identity, json_string_value(name), json_string_length(name) + 1);
    else
        reading.wrong = "for";
    read_choice(&reading, choice);
    json_decref(object);
    return !reading.wrong || error_input(error, "\"%s\" is missing or not what it must be", reading.wrong);
}
