/* Classes by their names: two datasets may number them differently, as folders do when one lacks a class. */
#ifndef QUEST_DATA_LOADERS_FORMAT_DATASET_CLASSES_H
#define QUEST_DATA_LOADERS_FORMAT_DATASET_CLASSES_H

#include "data_loaders/format/dataset.h"

/* The names of a dataset's classes, one a line, to be freed. NULL where it has no names, or one that is empty or has a
 * line break in it, or where there is no memory. */
char *dataset_class_lines(const struct dataset *dataset);

/* To be called once: numbers the labels as the first `classes` of `lines` number the classes of the same names. Without
 * lines or without names in the dataset the labels stay as they are. ERROR_INPUT: a class of the dataset is not among
 * the lines, which are those of `whose`. */
bool dataset_match_classes(struct dataset *dataset, const char *lines, size_t classes, const char *whose,
                           struct error *error);

#endif
