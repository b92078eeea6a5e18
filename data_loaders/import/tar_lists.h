/* Classes and labels of tars, before an image is read: what lists say, what names of members say, and whether they fit.
 */
#ifndef QUEST_DATA_LOADERS_IMPORT_TAR_LISTS_H
#define QUEST_DATA_LOADERS_IMPORT_TAR_LISTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "data_loaders/import/tar_images.h"
#include "data_loaders/import/text_lines.h"
#include "src/base/error.h"

enum tar_kind { TAR_OF_TARS, TAR_AND_LIST, TAR_OF_KEYS };

struct tar_lists {
    enum tar_kind kind;
    char **class_names; /* [classes]; NULL where none are known */
    size_t classes;
    struct name_index index; /* of class_names */
    int32_t *labels;         /* [images] TAR_AND_LIST: of the images in the order of the tars */
    size_t images;
};

bool tar_lists_make(struct tar_lists *lists, const struct tar_images_options *options, struct error *error);
void tar_lists_free(struct tar_lists *lists);

#endif
