/* Writes PNG files (8-bit RGB, not interlaced). */
#ifndef QUEST_PREVIEW_PNG_H
#define QUEST_PREVIEW_PNG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "src/base/error.h"

/* pixels [height, width, 3]. The same pixels give the same file. ERROR_RUNTIME: no memory; what the file itself
 * refuses is left to ferror. */
bool png_write(FILE *file, const uint8_t *pixels, size_t height, size_t width, struct error *error);

#endif
