/* YAML text to a checked struct config. */
#ifndef QUEST_CONFIG_LOAD_H
#define QUEST_CONFIG_LOAD_H

#include "src/config/config.h"

/* Reads `path`, applies the `overrides` ("key.path=value", as --set gives them), fills in presets and defaults, checks
 * every value and every relation that does not need the dataset. ERROR_INPUT with file, line and key. */
bool config_load(struct config *config, const char *path, const char *const *overrides, size_t override_count,
                 struct error *error);
/* The same from text; `name` stands for the file in messages. Checkpoints carry their configuration as text. */
bool config_parse(struct config *config, const char *text, size_t text_bytes, const char *name,
                  const char *const *overrides, size_t override_count, struct error *error);
/* Only the keys under model: and attention: are required to be whole (for --checkpoint files and fixtures, which hold
 * no data or train section). */
bool config_parse_model(struct config *config, const char *text, size_t text_bytes, const char *name,
                        struct error *error);

#endif
