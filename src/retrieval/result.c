/* result.json: written whole or not at all, and read back with every field checked. */
#include "src/retrieval/result.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/files/file_output.h"
#include "src/record/json_line.h"

bool retrieval_succeeded(const struct retrieval_result *result, double threshold)
{
    return result->accuracy_unbiased > threshold && result->accuracy_biased > threshold;
}

static bool make_line(struct json_line *line, const struct retrieval_result *result)
{
    json_line_begin(line);
    json_line_text(line, "specification", result->specification);
    json_line_text(line, "kind", result->kind);
    json_line_number(line, "lr", result->lr);
    json_line_number(line, "weight_decay", result->weight_decay);
    json_line_whole(line, "seed", (int64_t)result->seed);
    json_line_whole(line, "steps", (int64_t)result->steps);
    json_line_number(line, "loss", result->loss);
    json_line_number(line, "accuracy_unbiased", result->accuracy_unbiased);
    json_line_number(line, "accuracy_biased", result->accuracy_biased);
    json_line_whole(line, "skipped_updates", (int64_t)result->skipped_updates);
    json_line_whole(line, "weights_crc32", (int64_t)result->weights_crc32);
    json_line_number(line, "seconds", result->seconds);
    json_line_number(line, "cpu_s", result->cpu_s);
    return json_line_end(line);
}

bool retrieval_result_write(const struct retrieval_result *result, const char *directory, struct error *error)
{
    char *path = file_path(directory, "result.json"), *temporary = file_path(directory, "result.json.new");
    struct json_line line;
    bool ok = make_line(&line, result) && path && temporary;
    int file = ok ? open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666) : -1;
    if (!ok) {
        error_runtime(error, "%s: out of memory", directory);
    } else if (file < 0 || !file_write_all(file, line.text, line.bytes)) {
        ok = error_runtime(error, "%s: cannot be written: %s", temporary, strerror(errno));
        if (file >= 0)
            close(file);
        unlink(temporary);
    } else {
        ok = file_commit(file, temporary, path, directory, error);
    }
    json_line_free(&line);
    free(path);
    free(temporary);
    return ok;
}

/* ---- reading ---- */

static double number(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

static uint64_t whole(const json_t *object, const char *key, bool *complete)
{
    const json_t *value = json_object_get(object, key);
    *complete = *complete && json_is_integer(value) && json_integer_value(value) >= 0;
    return *complete ? (uint64_t)json_integer_value(value) : 0;
}

static void text(char *to, size_t bytes, const json_t *object, const char *key, bool *complete)
{
    const char *value = json_string_value(json_object_get(object, key));
    *complete = *complete && value && strlen(value) < bytes;
    snprintf(to, bytes, "%s", *complete ? value : "");
}

/* What is named or counted by must be there; a number that was not finite is null, and NaN here. */
static bool from_json(struct retrieval_result *result, const json_t *object)
{
    bool complete = true;
    text(result->specification, sizeof result->specification, object, "specification", &complete);
    text(result->kind, sizeof result->kind, object, "kind", &complete);
    result->seed = whole(object, "seed", &complete);
    result->steps = whole(object, "steps", &complete);
    result->skipped_updates = whole(object, "skipped_updates", &complete);
    result->weights_crc32 = (uint32_t)whole(object, "weights_crc32", &complete);
    result->lr = number(object, "lr");
    result->weight_decay = number(object, "weight_decay");
    result->loss = number(object, "loss");
    result->accuracy_unbiased = number(object, "accuracy_unbiased");
    result->accuracy_biased = number(object, "accuracy_biased");
    result->seconds = number(object, "seconds");
    result->cpu_s = number(object, "cpu_s");
    return complete && isfinite(result->lr) && isfinite(result->weight_decay) && isfinite(result->accuracy_unbiased) &&
           isfinite(result->accuracy_biased);
}

bool retrieval_result_read(struct retrieval_result *result, bool *found, const char *directory, struct error *error)
{
    char *path = file_path(directory, "result.json");
    if (!path)
        return error_runtime(error, "%s: out of memory", directory);
    *result = (struct retrieval_result){0};
    *found = access(path, F_OK) == 0;
    json_t *object = *found ? json_load_file(path, JSON_REJECT_DUPLICATES, NULL) : NULL;
    bool ok = !*found || from_json(result, object) ||
              error_input(error, "%s: is not the result of a run; remove it and run the grid again", path);
    json_decref(object);
    free(path);
    return ok;
}
