/* Going back to an earlier step without losing what was logged since: RUN/rewound/1, 2, ... */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "src/files/file_output.h"
#include "src/log/files.h"
#include "src/log/segments.h"
#include "src/record/log_line.h"

/* RUN/rewound/<number>, or the next number that is not taken (by a rewind that a crash cut short). */
static char *make_directory(struct run_log *log, uint64_t number, struct error *error)
{
    char *parent = file_path(log->directory, "rewound"), *path = NULL;
    bool made = false;
    if (!parent || !file_make_directories(parent, error)) {
        if (!parent)
            error_runtime(error, "%s: out of memory", log->directory);
        free(parent);
        return NULL;
    }
    do {
        free(path);
        if (asprintf(&path, "%s/%llu", parent, (unsigned long long)number++) < 0)
            path = NULL;
        made = path && mkdir(path, 0777) == 0;
    } while (path && !made && errno == EEXIST);
    if (!made) {
        error_runtime(error, "%s: no directory can be made in it: %s", parent, strerror(path ? errno : ENOMEM));
        free(path);
        path = NULL;
    }
    free(parent);
    return path;
}

/* Whether a cut at `step` takes a line away; a part of a line is none. */
static bool is_cut(struct log_line *parsed, const char *text, size_t bytes, uint64_t step)
{
    return text[bytes - 1] == '\n' &&
           !(log_line_read(parsed, text, bytes) && log_line_number(parsed, "step") <= (double)step);
}

/* Appends what is cut from one file to `out` (NULL: only counts it). */
static bool copy_cut(const char *path, FILE *out, uint64_t step, uint64_t *count)
{
    FILE *in = run_log_open_lines(path);
    struct log_line parsed = {0};
    char *line = NULL;
    size_t capacity = 0;
    bool ok = in != NULL;
    *count = 0;
    for (ssize_t bytes; ok && (bytes = getline(&line, &capacity, in)) > 0;) {
        if (!is_cut(&parsed, line, (size_t)bytes, step))
            continue;
        ++*count;
        ok = !out || fwrite(line, 1, (size_t)bytes, out) == (size_t)bytes;
    }
    int problem = errno;
    log_line_free(&parsed);
    free(line);
    if (in)
        fclose(in);
    errno = problem;
    return ok;
}

static char *segment_path(const char *log_path, uint64_t number)
{
    bool plain = log_segment_exists(log_path, number, LOG_SEGMENT_PLAIN);
    return log_segment_path(log_path, number, plain ? LOG_SEGMENT_PLAIN : LOG_SEGMENT_PACKED);
}

static bool copy_cut_segment(const char *log_path, uint64_t number, FILE *out, uint64_t step, uint64_t *count)
{
    char *path = segment_path(log_path, number);
    bool ok = path && copy_cut(path, out, step, count);
    free(path);
    return ok;
}

/* Of finished segments only the newest can hold later steps: back to the first of them, then forward. */
static bool copy_cut_segments(const char *log_path, FILE *out, uint64_t step)
{
    uint64_t first, last, count = 1;
    log_segments_range(log_path, &first, &last);
    uint64_t begin = last + 1;
    while (last > 0 && begin > first && count > 0) {
        if (!copy_cut_segment(log_path, begin - 1, NULL, step, &count))
            return false;
        begin -= count > 0;
    }
    for (uint64_t number = begin; number <= last; number++)
        if (!copy_cut_segment(log_path, number, out, step, &count))
            return false;
    return true;
}

static bool copy_cut_log(const struct run_log *log, int which, const char *to, uint64_t step)
{
    uint64_t count;
    FILE *out = fopen(to, "we");
    bool ok = out && (which != RUN_LOG_NORMS || copy_cut_segments(log->paths[which], out, step)) &&
              copy_cut(log->paths[which], out, step, &count);
    int problem = errno;
    if (out && fclose(out) != 0 && ok) {
        ok = false;
        problem = errno;
    }
    errno = problem;
    return ok;
}

static bool copy_all_cut(struct run_log *log, const char *directory, uint64_t step, char **events, struct error *error)
{
    struct error ignored; /* whatever the packer met, it left the segment that it was at as it was */
    bool ok = true;
    run_log_packed(log, true, &ignored);
    for (int i = 0; ok && i < RUN_LOG_FILES; i++) {
        char *to = file_path(directory, strrchr(log->paths[i], '/') + 1);
        ok = to && copy_cut_log(log, i, to, step);
        if (!ok)
            error_runtime(error, "%s: its lines after step %llu cannot be copied to %s: %s", log->paths[i],
                          (unsigned long long)step, directory, strerror(to ? errno : ENOMEM));
        if (i == RUN_LOG_EVENTS)
            *events = to;
        else
            free(to);
    }
    return ok;
}

/* events.jsonl tells the whole story: what the cut took from it comes back. */
static bool append_events(struct run_log *log, const char *path, struct error *error)
{
    char *line = NULL;
    size_t capacity = 0;
    FILE *from = fopen(path, "re");
    bool ok = from != NULL;
    for (ssize_t bytes; ok && (bytes = getline(&line, &capacity, from)) > 0;)
        ok = file_write_all(log->files[RUN_LOG_EVENTS], line, (size_t)bytes);
    if (!ok)
        error_runtime(error, "%s: the events of %s cannot be kept: %s", log->paths[RUN_LOG_EVENTS], path,
                      strerror(errno));
    free(line);
    if (from)
        fclose(from);
    return ok;
}

bool run_log_put_aside(struct run_log *log, uint64_t step, uint64_t number, char **directory, struct error *error)
{
    char *events = NULL;
    *directory = make_directory(log, number, error);
    bool ok = *directory && copy_all_cut(log, *directory, step, &events, error) && run_log_rewind(log, step, error) &&
              append_events(log, events, error);
    free(events);
    return ok;
}
