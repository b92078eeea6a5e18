/* Checkpoints: HDF5 files of format "quest-checkpoint", version 1 (docs/files.md). A file is written to a temporary
 * name, flushed to the disk, read back and compared, then renamed: a crash at any moment leaves the previous one whole.
 * Data is stored with HDF5's checksums (Fletcher-32 on chunks, version 3 superblock and version 2 headers for metadata)
 * and a CRC-32 of the whole file at its end, so a flipped bit is an error when read and never a silently wrong number.
 */
#ifndef QUEST_CHECKPOINT_CHECKPOINT_H
#define QUEST_CHECKPOINT_CHECKPOINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/error.h"

/* One parameter as the file sees it: timm's name and shape, float32, dense. */
struct checkpoint_tensor {
    const char *name;
    size_t rank, shape[4];
    float *average;           /* host memory; NULL: is not read or written */
    float *parameter, *m, *v; /* host memory; m and v NULL where there is no optimiser state; parameter NULL: a tensor
                                 that may be in the file and is not read */
};

enum { CHECKPOINT_NORMS_MAX = 129 };

struct checkpoint {
    uint64_t step, epoch, world_size;
    char *config;      /* YAML text, caller's (write) or to be freed with checkpoint_free (read) */
    char *class_names; /* of the training data, one a line, or NULL; whose as config */
    struct checkpoint_tensor *tensors;
    size_t tensor_count;
    bool has_average; /* the file has a running average of the parameters */
    /* How pixels were normalised in training, stored as root attributes `mean` and `std` so that an evaluation does the
     * same; channels 0: not known (files of weights alone), nothing is written. */
    size_t channels;
    float mean[4], std[4];
    double best_top1; /* highest top-1 so far; negative = not evaluated */
    /* What the diagnosis did to the run; files of before have none of it: scale 1, nothing else. */
    double lr_scale;  /* what the schedule's learning rate is multiplied by */
    uint64_t rewinds; /* so far */
    size_t gradient_norm_count;
    double gradient_norms[CHECKPOINT_NORMS_MAX]; /* of the newest steps, the newest last */
};

/* Writes DIR/step_%08u.h5. ERROR_RUNTIME (disk full, not writable) leaves no temporary file behind. */
bool checkpoint_write(const char *directory, const struct checkpoint *checkpoint, struct error *error);
/* Only the header: everything but the tensors. ERROR_RUNTIME where the file is damaged or is no checkpoint. */
bool checkpoint_read_header(struct checkpoint *checkpoint, const char *path, struct error *error);
/* Fills the memory that `checkpoint->tensors` point to. A missing, extra or wrongly shaped tensor is an error that
 * names it (ERROR_INPUT: the file belongs to another model); with_optimiser: /adamw too; has_average: /ema, where a
 * tensor has a place for it. Damage is ERROR_RUNTIME: an
 * older checkpoint may do. Where require_format is false any file with /params is accepted (for --init) and every error
 * is ERROR_INPUT. After an error the memory may hold a part of the file. */
bool checkpoint_read_tensors(const char *path, const struct checkpoint *checkpoint, bool with_optimiser,
                             bool require_format, struct error *error);
/* The shapes that the named parameters have in the file, for --init; rank 0: it has no such dataset of at most four
 * dimensions. Errors as without require_format. */
bool checkpoint_read_shapes(const char *path, struct checkpoint_tensor *tensors, size_t count, struct error *error);
void checkpoint_free(struct checkpoint *checkpoint);

/* The step that a path of checkpoint_list stands for. */
uint64_t checkpoint_step_of(const char *path);
/* Moves the checkpoints of steps after `step` from DIR to the directory `to` on the same file system. *best_moved: the
 * one that best.h5 named is among them; the link is removed then. */
bool checkpoint_put_aside(const char *directory, uint64_t step, const char *to, bool *best_moved, struct error *error);
/* Newest-first paths of DIR/step_*.h5. Caller frees with checkpoint_list_free. */
bool checkpoint_list(char ***paths, size_t *count, const char *directory, struct error *error);
void checkpoint_list_free(char **paths, size_t count);
/* Of the checkpoints up to `step`, removes all but the `keep` newest and the one that DIR/best.h5 (a symbolic link)
 * names. Newer ones are damaged files that a resumed run passed over: they do not count. */
bool checkpoint_prune(const char *directory, size_t keep, uint64_t step, struct error *error);
/* Points DIR/best.h5 at step's file, atomically. */
bool checkpoint_mark_best(const char *directory, uint64_t step, struct error *error);

#endif
