/* Where the bytes of an HDF5 dataset lie in its file, so that they can be read without HDF5. */
#ifndef QUEST_DATA_LOADERS_FORMAT_PLACEMENT_H
#define QUEST_DATA_LOADERS_FORMAT_PLACEMENT_H

#include <hdf5.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/error.h"

/* A dataset of uint8, open in a file that h5_input_open opened. */
struct bytes_in_file {
    const char *path, *name; /* of the file; of the dataset without its leading slash */
    hid_t file, dataset;
    int rank;               /* at most 4 */
    const hsize_t *extents; /* [rank] */
    uint64_t file_bytes;
};

/* Contiguous runs of whole items (one index of the first dimension), in order; the last may be cut. */
struct placement {
    size_t pieces, piece_bytes;
    uint64_t *offsets; /* [pieces] in the file, each run checked to lie inside it; the caller frees */
};

/* ERROR_INPUT: not uint8, compressed, chunks that cut items, never written, or larger than the file; offsets is NULL
 * then. */
bool placement_find(struct placement *placement, const struct bytes_in_file *bytes, struct error *error);

#endif
