/* The finished parts of a long log. norms.jsonl is the part that is written; those before it are segments beside it,
 * numbered from 1 in the order of their lines:
 *
 *     norms-000001.jsonl.gz  norms-000002.jsonl.gz  norms-000003.jsonl  norms.jsonl
 *
 * A segment without .gz has not been compressed yet. Where both exist (a crash between the rename of the one and the
 * removal of the other) they hold the same lines. */
#ifndef QUEST_LOG_SEGMENTS_H
#define QUEST_LOG_SEGMENTS_H

#include <stdbool.h>
#include <stdint.h>

#include "src/base/error.h"

#define LOG_SEGMENT_PLAIN  ""
#define LOG_SEGMENT_PACKED ".gz"

/* The path of segment `number` of `log_path` ("RUN/norms.jsonl"), to be freed; NULL: out of memory. */
char *log_segment_path(const char *log_path, uint64_t number, const char *suffix);
/* The smallest and largest number that exist; both 0 where there is none, or the directory cannot be read. */
void log_segments_range(const char *log_path, uint64_t *first, uint64_t *last);
bool log_segment_exists(const char *log_path, uint64_t number, const char *suffix);
/* Compresses segment `number`: written beside, flushed to the disk, renamed, and only then is the plain one removed.
 * ERROR_RUNTIME, and then the plain one is as it was. */
bool log_segment_pack(const char *log_path, uint64_t number, struct error *error);

#endif
