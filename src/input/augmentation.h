/* From a configuration's keys to what the loaders do with pictures. */
#ifndef QUEST_INPUT_AUGMENTATION_H
#define QUEST_INPUT_AUGMENTATION_H

#include "data_loaders/load/augment.h"
#include "src/config/config.h"
#include "src/input/draws.h"

/* How pictures are resized, in training and in evaluation: all that an evaluation needs. */
struct augment input_resizing(const struct config *config);
/* And what training draws. ERROR_INPUT names the key. */
bool input_augment(struct augment *augment, const struct config *config, struct error *error);
/* And what it draws for the batches that the loader made. */
struct draw_options input_draws(const struct config *config);

#endif
