/* The members of a tar file, one after the other, through libarchive; nothing is ever put on the disk. Also of a tar in
 * a tar. Files may be damaged or hostile: every error names the file and what is wrong, and memory is bounded. */
#ifndef QUEST_DATA_LOADERS_IMPORT_TAR_READER_H
#define QUEST_DATA_LOADERS_IMPORT_TAR_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/error.h"

enum {
    TAR_LONGEST_NAME = 1024,       /* bytes; ImageNet's have 23 */
    TAR_LARGEST_MEMBER = 64 << 20, /* bytes that are read of one; ImageNet's largest has 15 MB */
};

struct tar_reader;

/* A file or a link; folders and hidden files are passed over. */
struct tar_member {
    const char *name; /* as it stands in the tar, valid until the next one */
    uint64_t bytes;   /* as the header says */
    bool link;        /* to another file: there is nothing to read */
};

/* ERROR_INPUT: no regular file, no tar (compressed, say), without its end mark and so cut short. */
bool tar_reader_open(struct tar_reader **reader, const char *path, struct error *error);
/* The present member of `outer` as a tar. `outer` must not be moved on before this one is closed. */
bool tar_reader_open_inside(struct tar_reader **reader, struct tar_reader *outer, struct error *error);
void tar_reader_close(struct tar_reader *reader);
/* For messages: "train.tar", or "train.tar: n01440764.tar". */
const char *tar_reader_path(const struct tar_reader *reader);

/* The next member; *end instead where there is none. ERROR_INPUT: damaged or cut short; a name that is absolute, leads
 * upwards, is empty or longer than TAR_LONGEST_NAME; a device; a file with holes. */
bool tar_reader_next(struct tar_reader *reader, struct tar_member *member, bool *end, struct error *error);
/* All bytes of the present member; the caller frees. ERROR_INPUT: cut short, over TAR_LARGEST_MEMBER. */
bool tar_reader_read(struct tar_reader *reader, uint8_t **bytes, size_t *count, struct error *error);

#endif
