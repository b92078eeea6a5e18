/* Recipes: published trainings as keys. A recipe fills in what the configuration does not give; which keys it has and
 * where each number comes from stands in recipe.c. Internal to src/config. */
#ifndef QUEST_CONFIG_RECIPE_H
#define QUEST_CONFIG_RECIPE_H

#include "src/config/schema.h"

/* One key of a recipe. */
struct recipe_row {
    const char *key, *value;
    const char *preset; /* of the model for which it holds; NULL: of any */
    const char *unless; /* a key that says the same in other words: where it is given, this row does not apply */
};

/* A recipe's own rows: of a key the first that holds for the preset. What has none there, DeiT's rows give. */
const struct recipe_row *recipe_rows(enum recipe_name name, size_t *count);

/* Fills in the keys that neither file nor --set give. ERROR_INPUT where the recipe has a number for other presets only.
 */
bool recipe_apply(struct config_reading *reading);

#endif
