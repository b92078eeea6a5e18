/* Hostile configurations. Input: the file's text, then, each after a zero byte, --set overrides. What is accepted must
 * format to a text that is accepted and means the same. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/config/load.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(bool condition, const char *what, const char *detail)
{
    if (!condition) {
        fprintf(stderr, "%s: %s\n", what, detail);
        abort();
    }
}

static void check_round_trip(const struct config *config)
{
    struct config again;
    struct error error = {0};
    char *text = config_format(config);
    demand(text != NULL, "config_format", "out of memory");
    demand(config_parse(&again, text, strlen(text), "resolved", NULL, 0, &error), "not read back", error.message);
    demand(memcmp(config, &again, sizeof again) == 0, "not the same", text);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *copy = malloc(size + 1);
    if (!copy)
        return 0;
    memcpy(copy, data, size);
    copy[size] = '\0';
    const char *overrides[8];
    size_t count = 0, text_bytes = strlen(copy);
    for (size_t at = text_bytes; at < size && count < 8; at += 1 + strlen(copy + at + 1))
        overrides[count++] = copy + at + 1;
    struct config config;
    struct error error = {0};
    if (config_parse(&config, copy, text_bytes, "fuzz.yaml", overrides, count, &error))
        check_round_trip(&config);
    else
        demand(error.status != ERROR_NONE && error.message[0] && !strchr(error.message, '\n'), "bad error",
               error.message);
    if (!config_parse_model(&config, copy, text_bytes, "fuzz.h5", &error))
        demand(error.status != ERROR_NONE && error.message[0], "bad error", error.message);
    free(copy);
    return 0;
}
