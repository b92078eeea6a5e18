/* Opening the files of a run directory, for writing and for reading back. */
#include "src/log/files.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

bool run_log_open_file(struct run_log *log, enum run_log_file which, struct error *error)
{
    if (log->files[which] >= 0)
        close(log->files[which]);
    log->files[which] = open(log->paths[which], O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    return log->files[which] >= 0 ||
           error_input(error, "%s: cannot be written to: %s", log->paths[which], strerror(errno));
}

/* ---- lines of a file, compressed or not ---- */

static ssize_t read_packed(void *file, char *buffer, size_t bytes)
{
    return gzread(file, buffer, bytes < 1u << 30 ? (unsigned)bytes : 1u << 30);
}

static int close_packed(void *file)
{
    return gzclose_r(file) == Z_OK ? 0 : EOF;
}

FILE *run_log_open_lines(const char *path)
{
    gzFile packed = gzopen(path, "rbe");
    FILE *lines =
        packed ? fopencookie(packed, "r", (cookie_io_functions_t){.read = read_packed, .close = close_packed}) : NULL;
    if (packed && !lines)
        gzclose_r(packed);
    return lines;
}
