/* The images of tar files with their labels, in the order of the files. What they are is seen by themselves:
 *   tars in a tar   n01440764.tar and so on, one a class (ImageNet's training images)
 *   a list          images, whose labels stand in a file of their own in the order of the images' names (ImageNet's
 *                   validation images)
 *   keys            KEY.jpg beside KEY.cls (WebDataset) */
#ifndef QUEST_DATA_LOADERS_IMPORT_TAR_IMAGES_H
#define QUEST_DATA_LOADERS_IMPORT_TAR_IMAGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/error.h"

struct tar_images_options {
    const char *const *tars; /* [tar_count] */
    size_t tar_count;
    const char *classes; /* a file of class names, one a line, numbered from 0; NULL: as the tars say */
    const char *labels;  /* a file of labels, one an image: names of classes, or numbers of lines of `classes` */
    size_t first_label;  /* the number of the first line of `classes` in `labels` */
};

struct tar_image {
    char *name;     /* for messages: "train.tar: n01440764.tar: n01440764_18.JPEG" */
    uint8_t *bytes; /* NULL: there is none, for the reason in `error` */
    size_t byte_count;
    int32_t label;
    struct error error;
};

struct tar_images;

/* Reads lists, and the names of what is in the tars where they decide labels. ERROR_INPUT: as the tars' (tar_reader.h);
 * a list that does not fit what is in the tars; the same tar, class or image twice. */
bool tar_images_open(struct tar_images **images, const struct tar_images_options *options, struct error *error);
void tar_images_close(struct tar_images *images);
/* The next image, to be freed by tar_image_free; *end instead after the last. One thread at a time. */
bool tar_images_next(struct tar_images *images, struct tar_image *image, bool *end, struct error *error);
void tar_image_free(struct tar_image *image);

/* Of keys without a list of classes the classes are only known after the last image: the greatest and one. */
size_t tar_images_classes(const struct tar_images *images);
const char *const *tar_images_class_names(const struct tar_images *images); /* NULL: none are known */

#endif
