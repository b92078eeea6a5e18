/* Lists DIR/<class>/<image> with scandir(3), sorted bytewise whatever the locale. */
#include "data_loaders/import/folder_list.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static int bytewise(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int visible(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static char *join(const char *directory, const char *name)
{
    char *path = NULL;
    return asprintf(&path, "%s/%s", directory, name) < 0 ? NULL : path;
}

/* A regular file, or one that cannot be looked at (a link to nowhere): whoever reads it will say so. */
static bool may_be_file(const char *path, size_t *bytes)
{
    struct stat status;
    bool known = stat(path, &status) == 0;
    *bytes = known ? (size_t)status.st_size : 0;
    return !known || S_ISREG(status.st_mode);
}

static void free_entries(struct dirent **entries, int count)
{
    for (int i = 0; i < count; i++)
        free(entries[i]);
    free(entries);
}

static bool add_files(struct folder_list *list, const char *folder, struct error *error)
{
    struct dirent **entries = NULL;
    int count = scandir(folder, &entries, visible, bytewise);
    if (count < 0)
        return error_input(error, "%s: %s", folder, strerror(errno));
    struct folder_file *files = realloc(list->files, (list->file_count + (size_t)count + 1) * sizeof *files);
    if (!files) {
        free_entries(entries, count);
        return error_runtime(error, "%s: no memory for a list of %d files", folder, count);
    }
    list->files = files;
    size_t before = list->file_count;
    bool ok = true;
    for (int i = 0; ok && i < count; i++) {
        char *path = join(folder, entries[i]->d_name);
        size_t bytes;
        if (path && may_be_file(path, &bytes))
            list->files[list->file_count++] = (struct folder_file){path, (int32_t)list->classes, bytes};
        else
            free(path);
        ok = path ? true : error_runtime(error, "%s: no memory for a list of %d files", folder, count);
    }
    free_entries(entries, count);
    return ok && (list->file_count > before ||
                  error_input(error, "%s: holds no files; every class folder needs at least one image", folder));
}

static bool add_class(struct folder_list *list, const char *directory, const char *name, struct error *error)
{
    char *folder = join(directory, name);
    if (!folder)
        return error_runtime(error, "%s: no memory for a list of classes", directory);
    struct stat status;
    bool known = stat(folder, &status) == 0;
    if (!known || !S_ISDIR(status.st_mode)) { /* a file beside the class folders, such as a README, is none */
        known = known || error_input(error, "%s: %s", folder, strerror(errno));
        free(folder);
        return known;
    }
    char **names = realloc(list->class_names, (list->classes + 1) * sizeof *names);
    char *copy = strdup(name);
    bool ok = names && copy;
    if (names)
        list->class_names = names;
    if (!ok)
        error_runtime(error, "%s: no memory for a list of classes", directory);
    else
        ok = add_files(list, folder, error);
    if (ok)
        list->class_names[list->classes++] = copy;
    else
        free(copy);
    free(folder);
    return ok;
}

bool folder_list_read(struct folder_list *list, const char *directory, struct error *error)
{
    *list = (struct folder_list){0};
    struct dirent **entries = NULL;
    int count = scandir(directory, &entries, visible, bytewise);
    if (count < 0)
        return error_input(error, "%s: %s", directory, strerror(errno));
    bool ok = true;
    for (int i = 0; ok && i < count; i++)
        ok = add_class(list, directory, entries[i]->d_name, error);
    free_entries(entries, count);
    if (ok && list->classes == 0)
        ok = error_input(error, "%s: holds no class folders; images are expected as %s/<class>/<image>", directory,
                         directory);
    if (!ok)
        folder_list_free(list);
    return ok;
}

void folder_list_free(struct folder_list *list)
{
    for (size_t i = 0; i < list->classes; i++)
        free(list->class_names[i]);
    for (size_t i = 0; i < list->file_count; i++)
        free(list->files[i].path);
    free(list->class_names);
    free(list->files);
    *list = (struct folder_list){0};
}
