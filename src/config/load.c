/* The configuration of a run: read, completed and checked. */
#include "src/config/load.h"

#include <stdlib.h>

#include "src/config/recipe.h"
#include "src/config/schema.h"

/* The length of a run is one choice under two names: an override of one takes the place of the file's other. */
static void replace_run_length(struct config_reading *reading)
{
    struct config *config = reading->config;
    const struct config_place *epochs = &reading->places[config_key_find(reading->schema, "train.epochs")];
    const struct config_place *steps = &reading->places[config_key_find(reading->schema, "train.steps")];
    if (steps->override && !epochs->override && config->train.steps)
        config->train.epochs = 0;
    if (epochs->override && !steps->override && config->train.epochs)
        config->train.steps = 0;
}

bool config_parse(struct config *config, const char *text, size_t text_bytes, const char *name,
                  const char *const *overrides, size_t override_count, struct error *error)
{
    struct config_reading reading = {.schema = &config_schema, .config = config, .name = name, .error = error};
    if (!config_read(&reading, text, text_bytes, overrides, override_count))
        return false;
    replace_run_length(&reading);
    return recipe_apply(&reading) && config_check_model(&reading) && config_check_run(&reading);
}

bool config_parse_model(struct config *config, const char *text, size_t text_bytes, const char *name,
                        struct error *error)
{
    struct config_reading reading = {.schema = &config_schema, .config = config, .name = name, .error = error};
    return config_read(&reading, text, text_bytes, NULL, 0) && config_check_model(&reading);
}

bool config_load(struct config *config, const char *path, const char *const *overrides, size_t override_count,
                 struct error *error)
{
    char *text;
    size_t bytes;
    bool ok = config_read_file(&text, &bytes, path, error) &&
              config_parse(config, text, bytes, path, overrides, override_count, error);
    free(text);
    return ok;
}
