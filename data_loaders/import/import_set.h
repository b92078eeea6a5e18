/* The files of a numbered set that an import makes: which are there already, and what an import that was killed left.
 */
#ifndef QUEST_DATA_LOADERS_IMPORT_IMPORT_SET_H
#define QUEST_DATA_LOADERS_IMPORT_IMPORT_SET_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>

#include "data_loaders/import/folder_list.h"
#include "data_loaders/import/import.h"
#include "src/base/error.h"

enum { IMPORT_ID_BYTES = 24 };

/* What tells this import from another: its options, and of every file of the list the class, the name and the size. */
void import_set_identify(char id[IMPORT_ID_BYTES], const struct import_folder_options *options,
                         const struct folder_list *list, size_t height, size_t width);

struct import_shard {
    char path[PATH_MAX];
    bool finished;          /* of this very import */
    size_t images, skipped; /* where finished */
};

/* ERROR_INPUT: the name is too long, or there is a file under it that belongs to another import or cannot be read
 * (unless `force`, with which nothing counts as finished). */
bool import_shard_look(struct import_shard *shard, const struct import_folder_options *options, const char *id,
                       size_t number, struct error *error);
/* Removes the temporary files of that shard that writers left which were killed. */
void import_shard_clean(const struct import_shard *shard);

#endif
