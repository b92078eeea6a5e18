/* Cutting the logs back to the step of a checkpoint. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "src/files/file_output.h"
#include "src/log/files.h"
#include "src/log/segments.h"
#include "src/log/sinks.h"
#include "src/record/log_line.h"

/* What was done with the lines of one file. */
struct cut {
    uint64_t step, kept, dropped; /* dropped: of later steps */
};

/* Whole lines that say a step up to cut->step; a line that was cut off by a crash says none. */
static bool is_kept(struct cut *cut, struct log_line *line, const char *text, size_t bytes)
{
    bool whole = bytes > 0 && text[bytes - 1] == '\n' && log_line_read(line, text, bytes);
    double step = whole ? log_line_number(line, "step") : NAN;
    if (!(step >= 0))
        return false;
    bool kept = step <= (double)cut->step;
    cut->kept += kept;
    cut->dropped += !kept;
    return kept;
}

/* `to`: opened in zlib's plain or compressing mode; NULL: the lines are only counted. What cannot be read any more (a
 * damaged segment) ends the lines, as it does for every reader. */
static bool copy_kept(struct cut *cut, FILE *from, gzFile to)
{
    struct log_line parsed = {0};
    char *line = NULL;
    size_t capacity = 0;
    bool ok = true;
    for (ssize_t bytes; ok && (bytes = getline(&line, &capacity, from)) > 0;)
        if (is_kept(cut, &parsed, line, (size_t)bytes) && to)
            ok = gzwrite(to, line, (unsigned)bytes) == bytes;
    free(line);
    log_line_free(&parsed);
    return ok;
}

/* Writes the kept lines to `temporary`; returns an open descriptor for file_commit, or -1 with errno set. */
static int write_kept(struct cut *cut, const char *path, const char *temporary, const char *mode)
{
    FILE *from = run_log_open_lines(path);
    int file = from ? open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666) : -1;
    int own = file >= 0 ? dup(file) : -1; /* gzclose closes what it was given */
    gzFile to = own >= 0 ? gzdopen(own, mode) : NULL;
    bool ok = to && copy_kept(cut, from, to);
    int problem = errno;
    if (to && gzclose(to) != Z_OK && ok) {
        ok = false;
        problem = errno;
    }
    if (!to && own >= 0)
        close(own);
    if (from)
        fclose(from);
    if (!ok && file >= 0) {
        close(file);
        file = -1;
    }
    errno = problem;
    return file;
}

/* ---- the files ---- */

static bool replace(const struct run_log *log, struct cut *cut, const char *from, const char *temporary,
                    const char *path, const char *mode, struct error *error)
{
    int file = write_kept(cut, from, temporary, mode);
    if (file >= 0)
        return file_commit(file, temporary, path, log->directory, error);
    error_runtime(error, "%s: cannot be cut back to step %llu: %s", path, (unsigned long long)cut->step,
                  strerror(errno));
    unlink(temporary);
    return false;
}

static bool rewind_file(struct run_log *log, enum run_log_file which, struct cut *cut, struct error *error)
{
    const char *path = log->paths[which];
    char *temporary = NULL;
    if (asprintf(&temporary, "%s.new", path) < 0)
        return error_runtime(error, "%s: out of memory", path);
    /* A crash while norms.jsonl became a segment leaves none: it is made anew by the opening. */
    bool ok = access(path, F_OK) != 0 || replace(log, cut, path, temporary, path, "wbT", error);
    free(temporary);
    return ok && run_log_open_file(log, which, error);
}

/* Removes the segment where nothing of it is kept. */
static bool drop_segment(const char *path, uint64_t number, struct error *error)
{
    static const char *const suffixes[] = {LOG_SEGMENT_PLAIN, LOG_SEGMENT_PACKED};
    bool ok = true;
    for (size_t i = 0; ok && i < 2; i++) {
        char *segment = log_segment_path(path, number, suffixes[i]);
        ok = (segment && (unlink(segment) == 0 || errno == ENOENT)) ||
             error_runtime(error, "%s: segment %llu cannot be removed: %s", path, (unsigned long long)number,
                           strerror(errno));
        free(segment);
    }
    return ok;
}

static bool cut_segment(struct run_log *log, uint64_t number, const char *from, struct cut *cut, struct error *error)
{
    const char *path = log->paths[RUN_LOG_NORMS];
    if (cut->kept == 0)
        return drop_segment(path, number, error);
    char *packed = log_segment_path(path, number, LOG_SEGMENT_PACKED);
    char *plain = log_segment_path(path, number, LOG_SEGMENT_PLAIN);
    char *temporary = log_segment_path(path, number, LOG_SEGMENT_PACKED ".new");
    bool ok = packed && plain && temporary ? replace(log, cut, from, temporary, packed, "wb4", error)
                                           : error_runtime(error, "%s: out of memory", path);
    ok = ok && (unlink(plain) == 0 || errno == ENOENT || error_runtime(error, "%s: %s", plain, strerror(errno)));
    free(temporary);
    free(plain);
    free(packed);
    return ok;
}

static bool cut_back_segment(struct run_log *log, uint64_t number, uint64_t step, bool *reached, struct error *error)
{
    const char *path = log->paths[RUN_LOG_NORMS];
    bool plain = log_segment_exists(path, number, LOG_SEGMENT_PLAIN);
    if (!plain && !log_segment_exists(path, number, LOG_SEGMENT_PACKED))
        return true;
    char *from = log_segment_path(path, number, plain ? LOG_SEGMENT_PLAIN : LOG_SEGMENT_PACKED);
    FILE *lines = from ? run_log_open_lines(from) : NULL;
    struct cut cut = {.step = step};
    bool ok =
        (lines && copy_kept(&cut, lines, NULL)) ||
        error_runtime(error, "%s: segment %llu cannot be read: %s", path, (unsigned long long)number, strerror(errno));
    if (lines)
        fclose(lines);
    *reached = cut.kept > 0;
    ok = ok && (cut.dropped == 0 || cut_segment(log, number, from, &cut, error));
    free(from);
    return ok;
}

/* What a crash left: both forms of a segment, or a compressed one that is not whole. */
static void tidy(const char *path, uint64_t number)
{
    char *unfinished = log_segment_path(path, number, LOG_SEGMENT_PACKED ".new");
    char *plain = log_segment_path(path, number, LOG_SEGMENT_PLAIN);
    if (unfinished)
        unlink(unfinished);
    if (plain && log_segment_exists(path, number, LOG_SEGMENT_PACKED))
        unlink(plain);
    free(plain);
    free(unfinished);
}

/* From the newest back: a crash in between leaves a shorter log, which the next resume cuts again. */
static bool rewind_segments(struct run_log *log, uint64_t step, bool *reached, struct error *error)
{
    uint64_t first, last;
    const char *path = log->paths[RUN_LOG_NORMS];
    bool ok = true;
    log_segments_range(path, &first, &last);
    for (uint64_t number = last; number > 0 && number >= first; number--)
        tidy(path, number);
    for (uint64_t number = last; ok && !*reached && number > 0 && number >= first; number--)
        ok = cut_back_segment(log, number, step, reached, error);
    bool left = false;
    for (uint64_t number = first; ok && number > 0 && number <= last; number++)
        left = left || log_segment_exists(path, number, LOG_SEGMENT_PLAIN);
    return ok && (!left || run_log_start_packer(log, error));
}

bool run_log_rewind(struct run_log *log, uint64_t step, struct error *error)
{
    struct error ignored; /* whatever the packer met, it left the segment that it was at as it was */
    run_log_packed(log, true, &ignored);
    bool ok = true, reached = false;
    for (int i = 0; ok && i < RUN_LOG_FILES; i++) {
        struct cut cut = {.step = step};
        ok = rewind_file(log, (enum run_log_file)i, &cut, error);
        reached = i == RUN_LOG_NORMS ? cut.kept > 0 : reached;
    }
    if (ok)
        run_log_sinks_rewind(&log->sinks, step);
    return ok && rewind_segments(log, step, &reached, error);
}
