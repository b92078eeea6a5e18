/* Files that are either the old or the new, whole, whatever happens in between. */
#ifndef QUEST_FILES_FILE_OUTPUT_H
#define QUEST_FILES_FILE_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "src/base/error.h"

/* "directory/name", to be freed; NULL: out of memory. */
char *file_path(const char *directory, const char *name);
/* mkdir -p. ERROR_INPUT names the directory that cannot be made. */
bool file_make_directories(const char *path, struct error *error);
/* All of `bytes`, over short writes and signals. false: errno says why. */
bool file_write_all(int file, const void *bytes, size_t byte_count);
/* Makes names in a directory last: a rename is on the disk only after this. ERROR_RUNTIME. */
bool file_sync_directory(const char *directory, struct error *error);
/* Flushes `temporary` (open as `file`, closed here) to the disk and renames it to `path` in the same `directory`.
 * ERROR_RUNTIME; where it fails the temporary file is removed and `path` is as before. */
bool file_commit(int file, const char *temporary, const char *path, const char *directory, struct error *error);

/* A file written through a FILE, under a temporary name until it is whole. */
struct file_output {
    const char *path; /* borrowed */
    char *temporary;
    FILE *file;
};
/* ERROR_INPUT: the file cannot be made. */
bool file_output_open(struct file_output *output, const char *path, struct error *error);
/* Renames it to `path`, or removes it where `ok` is false (and *error says why already) or it cannot be written. Not
 * flushed to the disk: for what can be made again. */
bool file_output_close(struct file_output *output, bool ok, struct error *error);

/* The last part of a path, without slashes at its end: what a run is called after its directory. */
void file_last_part(char *name, size_t name_bytes, const char *path);

#endif
