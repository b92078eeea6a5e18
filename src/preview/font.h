/* Letters of 5 x 8 pixels: printable ASCII. */
#ifndef QUEST_PREVIEW_FONT_H
#define QUEST_PREVIEW_FONT_H

#include <stdint.h>

enum { FONT_WIDTH = 5, FONT_HEIGHT = 8 };

/* Five columns from left to right, bit 0 the uppermost pixel; of other bytes those of '?'. */
const uint8_t *font_columns(char letter);

#endif
