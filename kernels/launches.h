/* What was queued on a device, counted, and recorded to be queued again. */
#ifndef QUEST_KERNELS_LAUNCHES_H
#define QUEST_KERNELS_LAUNCHES_H

#include <stdint.h>

/* Our kernels, products by a library (each a kernel or two), copies and fills, and recordings of any number of these.
 */
struct launches {
    uint64_t kernels, products, copies, graphs;
};

struct recording; /* each backend's own */

#endif
