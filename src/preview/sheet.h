/* A sheet of paper in RGB: pictures and lines of text go where one puts them. */
#ifndef QUEST_PREVIEW_SHEET_H
#define QUEST_PREVIEW_SHEET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SHEET_LETTER = 12, SHEET_LINE = 18 }; /* pixels from one letter or line to the next */

struct sheet {
    uint8_t *pixels; /* [height, width, 3] */
    size_t height, width;
};

/* White. false: no memory. */
bool sheet_open(struct sheet *sheet, size_t height, size_t width);
void sheet_close(struct sheet *sheet);
/* rgb [size, size, 3], each pixel `times` x `times` large; must fit. */
void sheet_picture(struct sheet *sheet, size_t top, size_t left, const uint8_t *rgb, size_t size, size_t times);
/* A line of text, black; what would be wider than `width` pixels ends in "..". Letters that are not ASCII become '?'.
 */
void sheet_text(struct sheet *sheet, size_t top, size_t left, size_t width, const char *text);

#endif
