/* What a name in a tar says. */
#ifndef QUEST_DATA_LOADERS_IMPORT_TAR_NAMES_H
#define QUEST_DATA_LOADERS_IMPORT_TAR_NAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Behind the last slash. */
const char *tar_name_base(const char *name);
/* Where the extension begins, behind the base's first dot (WebDataset's rule: a.b.jpg is the b.jpg of a); at the end
 * where there is none. */
const char *tar_name_extension(const char *name);
bool tar_name_is_image(const char *extension);
/* "folder/n01440764.tar" -> "n01440764", to be freed; NULL: another name, or no memory. */
char *tar_name_class(const char *name);

/* Which names have been seen, by hashes of 64 bits: of a million names two share one with a chance of 10^-7. */
struct names_seen {
    uint64_t *slots; /* [capacity], 0: free */
    size_t capacity, count;
};
/* *again: has been seen before. false: no memory. */
bool names_seen_add(struct names_seen *seen, const char *name, size_t length, bool *again);
/* Forgets them all and keeps the memory. */
void names_seen_clear(struct names_seen *seen);
void names_seen_free(struct names_seen *seen);

#endif
