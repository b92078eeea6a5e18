/* Where the chunks of a dataset lie in the file, in O(log n) each.
 *
 * HDF5 1.10 can tell the address of a chunk only by walking through all chunks before it (H5Dget_chunk_info_by_coord
 * took 40 s for the 50,000 images of CIFAR-10), though it finds one in its index at once when it reads it. So the file
 * is opened through a driver of our own that reads as the default one does, except while an address is asked for: then
 * the request to read the chunk's bytes is noted instead of carried out. Files may hold anything: addresses are as the
 * file gives them, for the caller to check. */
#ifndef QUEST_FILES_H5_CHUNKS_H
#define QUEST_FILES_H5_CHUNKS_H

#include <hdf5.h>
#include <stdbool.h>
#include <stdint.h>

/* The driver, for H5Pset_driver. Negative: HDF5 refused. H5FDunregister ends it; only when its files are closed,
 * because closing one, HDF5 1.10 looks at the driver once more after having let go of it. */
hid_t h5_chunks_driver(void);
/* File offset and stored size of the chunk of `dataset` (in `file`, opened with the driver) that begins at `start`.
 * false: there is no such chunk. */
bool h5_chunks_find(hid_t file, hid_t dataset, const hsize_t *start, uint64_t *offset, uint64_t *bytes);

#endif
