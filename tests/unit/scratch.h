/* A directory for one test program's files: made before its tests, gone after them, as are the files that were open. */
#ifndef QUEST_TESTS_SCRATCH_H
#define QUEST_TESTS_SCRATCH_H

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char scratch[64];
static size_t files_open_before;

static inline size_t count_open_files(void)
{
    size_t count = 0;
    DIR *entries = opendir("/proc/self/fd");
    while (entries && readdir(entries))
        count++;
    if (entries)
        closedir(entries);
    return count;
}

static inline int make_scratch(void **state)
{
    (void)state;
    files_open_before = count_open_files();
    strcpy(scratch, "/tmp/quest_test_XXXXXX");
    return mkdtemp(scratch) ? 0 : -1;
}

static inline int remove_scratch(void **state)
{
    (void)state;
    char command[128];
    size_t files_open = count_open_files();
    if (files_open != files_open_before)
        fprintf(stderr, "%zu files are open that were %zu before\n", files_open, files_open_before);
    snprintf(command, sizeof command, "rm -rf %s", scratch);
    return system(command) == 0 && files_open == files_open_before ? 0 : -1;
}

/* The path of a file in it, until the next call. */
static inline const char *scratch_path(const char *name)
{
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", scratch, name);
    return path;
}

#endif
