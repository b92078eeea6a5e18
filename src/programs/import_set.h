/* quest-data import-folder --shards on the ranks of a job. */
#ifndef QUEST_PROGRAMS_IMPORT_SET_H
#define QUEST_PROGRAMS_IMPORT_SET_H

#include "data_loaders/import/import.h"

/* ERROR_RUNTIME where files were skipped: the dataset holds the others, and a script must not take it for all. */
bool import_is_whole(const char *from, const char *out, size_t images, size_t skipped, struct error *error);
/* Makes the files of a set, each by one rank of the job that this process is in (or is alone), and says on rank 0 how
 * many there are. Fills in options' ranks and agreement. Returns only where all went well: else the job ends with the
 * message and exit status of what did not. */
void import_set(struct import_folder_options *options);

#endif
