/* Follows a log line by line while it may still be growing: first its finished segments (src/log/segments.h), then the
 * file that is written, as one log. Whole lines only, so that a line that is being written (or was cut off by a crash)
 * waits for its end. Reads with pread(2) at an own offset: no state of the file matters, and a file on NFS is followed
 * as well as a local one. */
#ifndef QUEST_LOG_READER_H
#define QUEST_LOG_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/error.h"
#include "src/record/log_line.h"

struct gzFile_s; /* zlib.h */

struct log_reader {
    char *path;
    uint64_t part;            /* number of the segment that is read, or that `file` will be; 0: not begun */
    struct gzFile_s *segment; /* the segment that is read, compressed or not; NULL: none */
    int file;                 /* the part that may grow, -1: none */
    uint64_t offset, inode;   /* of `file` */
    char *buffer;             /* [begin, end) has been read and not yet given out */
    size_t begin, end, capacity;
    struct log_line line; /* the newest whole line */
    uint64_t lines, damaged;
    char *damaged_segments; /* one line of text for each, naming it; NULL: none */
};

/* A file that does not exist yet has no lines yet. */
bool log_reader_open(struct log_reader *reader, const char *path, struct error *error);
void log_reader_close(struct log_reader *reader);

enum log_reader_result { LOG_READER_LINE, LOG_READER_END, LOG_READER_RESTARTED, LOG_READER_FAILED };
/* The next line that can be read, in reader->line; damaged ones are counted and left out.
 * END: nothing more for now. RESTARTED: the log was replaced or cut (a resume): reading begins at its start again.
 * FAILED: error says why; a damaged segment is no failure, what can be read of it is given out. */
enum log_reader_result log_reader_next(struct log_reader *reader, struct error *error);

#endif
