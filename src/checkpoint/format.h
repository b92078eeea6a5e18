/* What writing and reading a checkpoint share: names in the file and the image that is built in memory. */
#ifndef QUEST_CHECKPOINT_FORMAT_H
#define QUEST_CHECKPOINT_FORMAT_H

#include <stdint.h>

#include "src/checkpoint/checkpoint.h"
#include "src/files/h5_input.h"

#define CHECKPOINT_FORMAT "quest-checkpoint"
enum {
    CHECKPOINT_VERSION = 1,
    CHECKPOINT_CONFIG_BYTES_MAX = 60000,
    CHECKPOINT_NAMES_BYTES_MAX = 1 << 20,
    CHECKPOINT_SEAL_BYTES = 32
};

/* A tensor is stored once as parameter and, for training, as AdamW's two moments and as its running average. */
enum checkpoint_part { CHECKPOINT_PARAMETER, CHECKPOINT_M, CHECKPOINT_V, CHECKPOINT_AVERAGE, CHECKPOINT_PARTS };
static inline const char *checkpoint_group(enum checkpoint_part part)
{
    static const char *const groups[CHECKPOINT_PARTS] = {"/params", "/adamw/m", "/adamw/v", "/ema"};
    return groups[part];
}
static inline float *checkpoint_part_of(const struct checkpoint_tensor *tensor, enum checkpoint_part part)
{
    float *const parts[CHECKPOINT_PARTS] = {tensor->parameter, tensor->m, tensor->v, tensor->average};
    return parts[part];
}
static inline size_t checkpoint_tensor_count(const struct checkpoint_tensor *tensor)
{
    size_t count = 1;
    for (size_t i = 0; i < tensor->rank; i++)
        count *= tensor->shape[i];
    return count;
}

/* The whole HDF5 file in memory, to be freed. ERROR_RUNTIME: out of memory. */
struct checkpoint_image {
    void *bytes;
    size_t byte_count;
};
bool checkpoint_image_build(struct checkpoint_image *image, const struct checkpoint *checkpoint, struct error *error);

/* What follows the image in the file. */
void checkpoint_seal(char seal[CHECKPOINT_SEAL_BYTES], const void *bytes, size_t byte_count);
/* ERROR_RUNTIME where the file ends in a seal that is not its own; a file without a seal, or none at all, passes. */
bool checkpoint_check_seal(const char *path, struct error *error);

/* Reads the file at `path` and compares it with memory, bit for bit. Takes as much scratch as the largest tensor. */
bool checkpoint_compare(const char *path, const struct checkpoint *checkpoint, struct error *error);
/* Of a file whose damage HDF5 found, `what` cannot be read. An older checkpoint may do, so the status differs from that
 * of a wrong model: ERROR_RUNTIME. false. */
bool checkpoint_damaged(const char *path, const char *what, struct error *error);
/* Whether the root attributes say that this is a checkpoint of a version that is read here. */
bool checkpoint_check_format(const struct h5_input *input, struct error *error);
bool checkpoint_has_moments(const struct checkpoint *checkpoint);
/* Whether it is to be read or written. */
bool checkpoint_wants_average(const struct checkpoint *checkpoint);

#endif
