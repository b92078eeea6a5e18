/* Muon over a model: matrices by their orthogonal factors, everything else by AdamW. */
#ifndef QUEST_OPTIMISER_MUON_H
#define QUEST_OPTIMISER_MUON_H

#include "src/model/model.h"

/* Queues a step over what is trained. Weights that decay are the matrices, [out, the rest]: linear layers, the head
 * and the patches among them. m holds their mean; their v stays 0. */
bool muon_update(struct model *model, const struct muon *muon, const struct adamw *adamw,
                 const double *gradient_sum_of_squares, struct error *error);
/* Before the first step; waits. A checksum of the step that every matrix would take were it its own gradient: the same
 * on ranks whose products round alike. Leaves numbers in the matrices' gradients, which a step overwrites. */
bool muon_print(struct model *model, uint32_t *print, struct error *error);

#endif
