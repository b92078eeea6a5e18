/* The image files of DIR/<class>/<image>, in an order that depends on their names alone: bytewise, classes then files.
 */
#ifndef QUEST_DATA_LOADERS_IMPORT_FOLDER_LIST_H
#define QUEST_DATA_LOADERS_IMPORT_FOLDER_LIST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/error.h"

struct folder_file {
    char *path;
    int32_t label;
    size_t bytes; /* of the file; 0 where it cannot be looked at */
};

struct folder_list {
    char **class_names; /* [classes] */
    size_t classes;
    struct folder_file *files; /* [file_count] */
    size_t file_count;
};

/* Hidden files are left out; symbolic links are followed, and those that lead nowhere are listed; deeper folders are
 * not entered. ERROR_INPUT: no such folder, no class folders, a class folder without files or out of reach. */
bool folder_list_read(struct folder_list *list, const char *directory, struct error *error);
void folder_list_free(struct folder_list *list);

#endif
