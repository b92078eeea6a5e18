/* Checked reads from an HDF5 file that may be hostile or damaged: every function names file and object in its error
 * and leaves nothing open. HDF5 1.10 is not thread-safe as Debian builds it: call these from one thread at a time. */
#ifndef QUEST_FILES_H5_INPUT_H
#define QUEST_FILES_H5_INPUT_H

#include <hdf5.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/error.h"

struct h5_input {
    const char *path; /* for messages */
    hid_t file, driver;
    H5E_auto2_t error_printer; /* HDF5's own error stack on stderr is off between open and close */
    void *error_printer_data;
};

/* ERROR_INPUT: no such file, not HDF5, truncated. A file with a user block counts as not HDF5, because
 * offsets inside it are not offsets in the file. */
bool h5_input_open(struct h5_input *input, const char *path, struct error *error);
void h5_input_close(struct h5_input *input);

/* Scalar attributes of the root group. Integers of any width and sign; strings of fixed or variable length. */
bool h5_input_string(const struct h5_input *input, const char *name, char *text, size_t text_bytes,
                     struct error *error);
bool h5_input_integer(const struct h5_input *input, const char *name, int64_t *value, struct error *error);
/* A one-dimensional attribute of at most `capacity` integers without a sign. */
bool h5_input_integers(const struct h5_input *input, const char *name, uint64_t *values, size_t capacity, size_t *count,
                       struct error *error);
/* A one-dimensional floating-point attribute of at most `capacity` numbers. */
bool h5_input_floats(const struct h5_input *input, const char *name, float *values, size_t capacity, size_t *count,
                     struct error *error);

/* Whether the file itself holds `name` ("images", "jpeg/bytes"): a link to another file or a soft link does not count.
 */
bool h5_input_has(const struct h5_input *input, const char *name);
/* Opens a dataset of `rank` dimensions, filling extents[rank]. Caller closes with H5Dclose. */
bool h5_input_dataset(const struct h5_input *input, const char *name, int rank, hsize_t *extents, hid_t *dataset,
                      struct error *error);
/* Reads a whole dataset of integers, converted to `memory_type`, into `values`. */
bool h5_input_read(const struct h5_input *input, hid_t dataset, const char *name, hid_t memory_type, void *values,
                   struct error *error);
/* A one-dimensional dataset of `count` strings of fixed or variable length. Caller frees each string and the list. */
bool h5_input_strings(const struct h5_input *input, const char *name, size_t count, char ***strings,
                      struct error *error);

/* The deepest message on HDF5's error stack, which says most; "" where there is none. */
void h5_input_reason(char *text, size_t text_bytes);

#endif
