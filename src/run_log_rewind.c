/* Cutting the logs back to the step of a checkpoint. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/file_output.h"
#include "src/run_log_files.h"

/* Whole lines that say a step up to `step`; a line that was cut off by a crash says none. */
static bool is_kept(const char *text, size_t bytes, uint64_t step)
{
    if (bytes == 0 || text[bytes - 1] != '\n')
        return false;
    json_t *record = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, NULL);
    const json_t *value = json_object_get(record, "step");
    json_int_t said = json_is_integer(value) ? json_integer_value(value) : -1;
    json_decref(record);
    return said >= 0 && (uint64_t)said <= step;
}

static bool copy_kept(FILE *from, FILE *to, uint64_t step)
{
    char *line = NULL;
    size_t capacity = 0;
    bool ok = true;
    for (ssize_t bytes; ok && (bytes = getline(&line, &capacity, from)) > 0;)
        if (is_kept(line, (size_t)bytes, step))
            ok = fwrite(line, 1, (size_t)bytes, to) == (size_t)bytes;
    ok = ok && !ferror(from);
    free(line);
    return ok;
}

/* Writes the kept lines to `temporary`; returns an open descriptor for file_commit, or -1 with errno set. */
static int write_kept(const char *path, const char *temporary, uint64_t step)
{
    FILE *from = fopen(path, "re"), *to = fopen(temporary, "we");
    int file = -1;
    if (from && to && copy_kept(from, to, step) && fflush(to) == 0)
        file = dup(fileno(to));
    int problem = errno;
    if (from)
        fclose(from);
    if (to)
        fclose(to);
    errno = problem;
    return file;
}

static bool rewind_file(struct run_log *log, enum run_log_file which, uint64_t step, struct error *error)
{
    char *temporary = NULL;
    if (asprintf(&temporary, "%s.new", log->paths[which]) < 0)
        return error_runtime(error, "%s: out of memory", log->paths[which]);
    int file = write_kept(log->paths[which], temporary, step);
    bool ok;
    if (file < 0) {
        ok = error_runtime(error, "%s: cannot be cut back to step %llu: %s", log->paths[which],
                           (unsigned long long)step, strerror(errno));
        unlink(temporary);
    } else {
        ok = file_commit(file, temporary, log->paths[which], log->directory, error) &&
             run_log_open_file(log, which, error);
    }
    free(temporary);
    return ok;
}

bool run_log_rewind(struct run_log *log, uint64_t step, struct error *error)
{
    bool ok = true;
    for (int i = 0; ok && i < RUN_LOG_FILES; i++)
        ok = rewind_file(log, (enum run_log_file)i, step, error);
    return ok;
}
