/* products.jsonl of a run directory: the algorithms by which products are computed, so that a run that goes on has the
 * same bits (kernels/products.h; docs/products.md). Internal to src/train. */
#ifndef QUEST_TRAIN_PRODUCTS_FILE_H
#define QUEST_TRAIN_PRODUCTS_FILE_H

#include "kernels/products.h"

struct kept_product {
    char identity[PRODUCTS_IDENTITY_BYTES]; /* of the GPU and libraries that it is for */
    struct product_choice choice;
};

struct kept_products {
    struct kept_product *items;
    size_t count;
};

/* The choices of the file, or none where there is no file. ERROR_INPUT: it is not what was written there; none then. */
bool products_file_read(struct kept_products *products, const char *path, struct error *error);
/* Whole or not there, flushed to the disk. `directory` is the file's. */
bool products_file_write(const struct kept_products *products, const char *path, const char *directory,
                         struct error *error);

/* Appends copies. */
bool kept_products_add(struct kept_products *products, const struct kept_product *items, size_t count,
                       struct error *error);
void kept_products_free(struct kept_products *products);

#endif
