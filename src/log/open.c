/* The run directory itself: made, locked, recognised. */
#include "src/log/run_log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/files/file_output.h"
#include "src/log/files.h"

static const char *const names[RUN_LOG_FILES] = {"metrics.jsonl", "norms.jsonl", "events.jsonl"};

const char *run_log_directory(const struct run_log *log)
{
    return log->directory;
}

const char *run_log_checkpoints(const struct run_log *log)
{
    return log->checkpoints;
}

static bool allocate(struct run_log **log, const char *directory, struct error *error)
{
    struct run_log *made = calloc(1, sizeof *made);
    *log = made;
    if (!made)
        return error_runtime(error, "%s: out of memory", directory);
    made->lock = -1;
    made->directory = strdup(directory);
    made->checkpoints = file_path(directory, "checkpoints");
    bool ok = made->directory && made->checkpoints;
    for (int i = 0; i < RUN_LOG_FILES; i++) {
        made->files[i] = -1;
        made->paths[i] = file_path(directory, names[i]);
        ok = ok && made->paths[i];
    }
    return ok || error_runtime(error, "%s: out of memory", directory);
}

static bool refuse_second_run(const struct run_log *log, struct error *error)
{
    char holder[256] = "";
    ssize_t bytes = pread(log->lock, holder, sizeof holder - 1, 0);
    if (bytes > 0)
        holder[strcspn(holder, "\n")] = '\0';
    return error_input(error, "%s: another run is writing here (%s); give this one another --out", log->directory,
                       holder[0] ? holder : "it has not said which yet");
}

/* The lock goes with the process, however that ends; the text inside only says who holds it. */
static bool take_lock(struct run_log *log, struct error *error)
{
    char *path = file_path(log->directory, "lock"), host[128] = "unknown", holder[256];
    if (!path)
        return error_runtime(error, "%s: out of memory", log->directory);
    log->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    free(path);
    if (log->lock < 0)
        return error_input(error, "%s: cannot be written to: %s; give another --out", log->directory, strerror(errno));
    if (flock(log->lock, LOCK_EX | LOCK_NB) != 0) {
        if (errno == EWOULDBLOCK)
            return refuse_second_run(log, error);
        return error_input(error, "%s: cannot be locked against a second run: %s; use a file system with locks",
                           log->directory, strerror(errno));
    }
    gethostname(host, sizeof host - 1);
    int length = snprintf(holder, sizeof holder, "host %s, process %ld\n", host, (long)getpid());
    if (ftruncate(log->lock, 0) != 0 || pwrite(log->lock, holder, (size_t)length, 0) != length)
        return error_runtime(error, "%s/lock: cannot be written: %s", log->directory, strerror(errno));
    return true;
}

static bool has_content(const char *path)
{
    struct stat status;
    return stat(path, &status) == 0 && S_ISREG(status.st_mode) && status.st_size > 0;
}

static bool has_checkpoint(const char *path)
{
    bool found = false;
    DIR *directory = opendir(path);
    for (struct dirent *entry; directory && !found && (entry = readdir(directory));)
        found = strncmp(entry->d_name, "step_", 5) == 0;
    if (directory)
        closedir(directory);
    return found;
}

/* A directory in which only config.yaml was written is a start that failed, not a run. */
static bool refuse_old_run(const struct run_log *log, struct error *error)
{
    bool run = has_checkpoint(log->checkpoints);
    for (int i = 0; i < RUN_LOG_FILES; i++)
        run = run || has_content(log->paths[i]);
    return !run || error_input(error, "%s: holds a run already; go on with it by --resume, or give another --out",
                               log->directory);
}

bool run_log_open(struct run_log **log, const char *directory, bool resume, struct error *error)
{
    bool ok = allocate(log, directory, error) && file_make_directories(directory, error) && take_lock(*log, error) &&
              (resume || refuse_old_run(*log, error)) && file_make_directories((*log)->checkpoints, error);
    for (int i = 0; ok && i < RUN_LOG_FILES; i++)
        ok = run_log_open_file(*log, (enum run_log_file)i, error);
    if (!ok) {
        run_log_close(*log);
        *log = NULL;
    }
    return ok;
}

bool run_log_set_options(struct run_log *log, const struct run_log_options *options, struct error *error)
{
    log->options = *options;
    return run_log_sinks_open(&log->sinks, log->directory, options, error);
}

void run_log_close(struct run_log *log)
{
    struct error ignored; /* run_log_finish tells it */
    if (!log)
        return;
    run_log_packed(log, true, &ignored);
    run_log_sinks_close(&log->sinks);
    for (int i = 0; i < RUN_LOG_FILES; i++) {
        if (log->files[i] >= 0)
            close(log->files[i]);
        free(log->paths[i]);
    }
    if (log->lock >= 0)
        close(log->lock);
    free(log->checkpoints);
    free(log->directory);
    free(log);
}

bool run_log_config(struct run_log *log, const char *yaml, struct error *error)
{
    char *path = file_path(log->directory, "config.yaml"), *temporary = file_path(log->directory, "config.yaml.new");
    bool ok = path && temporary;
    int file = ok ? open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666) : -1;
    if (!ok) {
        error_runtime(error, "%s: out of memory", log->directory);
    } else if (file < 0 || !file_write_all(file, yaml, strlen(yaml))) {
        ok = error_runtime(error, "%s: cannot be written: %s", temporary, strerror(errno));
        if (file >= 0)
            close(file);
        unlink(temporary);
    } else {
        ok = file_commit(file, temporary, path, log->directory, error);
    }
    free(path);
    free(temporary);
    return ok;
}
