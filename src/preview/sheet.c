/* Letters are drawn at twice the font's size. */
#include "src/preview/sheet.h"

#include <stdlib.h>
#include <string.h>

#include "src/preview/font.h"

enum { CHANNELS = 3, TIMES = 2 };

bool sheet_open(struct sheet *sheet, size_t height, size_t width)
{
    *sheet = (struct sheet){malloc(height * width * CHANNELS), height, width};
    if (sheet->pixels)
        memset(sheet->pixels, 255, height * width * CHANNELS);
    return sheet->pixels != NULL;
}

void sheet_close(struct sheet *sheet)
{
    free(sheet->pixels);
    sheet->pixels = NULL;
}

static void fill_square(struct sheet *sheet, size_t top, size_t left, size_t size, const uint8_t colour[CHANNELS])
{
    for (size_t y = top; y < top + size && y < sheet->height; y++)
        for (size_t x = left; x < left + size && x < sheet->width; x++)
            memcpy(sheet->pixels + (y * sheet->width + x) * CHANNELS, colour, CHANNELS);
}

void sheet_picture(struct sheet *sheet, size_t top, size_t left, const uint8_t *rgb, size_t size, size_t times)
{
    for (size_t y = 0; y < size; y++)
        for (size_t x = 0; x < size; x++)
            fill_square(sheet, top + y * times, left + x * times, times, rgb + (y * size + x) * CHANNELS);
}

static void draw_letter(struct sheet *sheet, size_t top, size_t left, char letter)
{
    static const uint8_t black[CHANNELS] = {0, 0, 0};
    const uint8_t *columns = font_columns(letter);
    for (size_t x = 0; x < FONT_WIDTH; x++)
        for (size_t y = 0; y < FONT_HEIGHT; y++)
            if (columns[x] >> y & 1)
                fill_square(sheet, top + TIMES * y, left + TIMES * x, TIMES, black);
}

void sheet_text(struct sheet *sheet, size_t top, size_t left, size_t width, const char *text)
{
    const size_t room = width / SHEET_LETTER, length = strlen(text);
    const size_t whole = length <= room ? length : room > 2 ? room - 2 : 0;
    for (size_t i = 0; i < length && i < room; i++)
        draw_letter(sheet, top, left + i * SHEET_LETTER, i < whole ? text[i] : '.');
}
