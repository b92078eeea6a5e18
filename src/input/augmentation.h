/* From a configuration's keys to what the loaders do with pictures. */
#ifndef QUEST_INPUT_AUGMENTATION_H
#define QUEST_INPUT_AUGMENTATION_H

#include "data_loaders/load/augment.h"
#include "src/config/config.h"
#include "src/input/draws.h"

/* How pictures are resized, in training and in evaluation: all that an evaluation needs. */
struct augment input_resizing(const struct config *config);
/* A loader's options but for its share of the batch: of any dataset, without order and augmentation; and for training.
 */
struct loader_options input_reading(const struct config *config, const struct dataset *dataset);
bool input_training(struct loader_options *loader, const struct config *config, const struct dataset *dataset,
                    struct error *error);
/* And what it draws for the batches that the loader made. */
struct draw_options input_draws(const struct config *config);

#endif
