/* Tone curves: arithmetic where the compiler makes vector code of it, else a table a channel. */
#include "data_loaders/image/tone.h"

#include <string.h>

#include "data_loaders/image/lanes.h"

enum { CHANNELS = 3, LEVELS = 256 };

void tone_invert(uint8_t *pixels, size_t count)
{
    for (size_t i = 0; i < CHANNELS * count; i++)
        pixels[i] = (uint8_t)(255 - pixels[i]);
}

void tone_posterise(uint8_t *pixels, size_t count, int bits)
{
    uint8_t mask = bits <= 0 ? 0 : bits >= 8 ? 255 : (uint8_t)(0xff << (8 - bits));
    for (size_t i = 0; i < CHANNELS * count; i++)
        pixels[i] &= mask;
}

void tone_solarise(uint8_t *pixels, size_t count, int threshold)
{
    if (threshold > 255)
        return;
    uint8_t first = threshold < 0 ? 0 : (uint8_t)threshold;
    for (size_t i = 0; i < CHANNELS * count; i++)
        pixels[i] = pixels[i] < first ? pixels[i] : (uint8_t)(255 - pixels[i]);
}

void tone_solarise_add(uint8_t *pixels, size_t count, int add)
{
    const int16_t more = (int16_t)(add < 0 ? 0 : add > 255 ? 255 : add);
    for (size_t i = 0; i < CHANNELS * count; i++) {
        int16_t sum = (int16_t)(pixels[i] + more);
        pixels[i] = pixels[i] < 128 ? (uint8_t)(sum < 255 ? sum : 255) : pixels[i];
    }
}

static void look_up(uint8_t *pixels, size_t count, uint8_t table[CHANNELS][LEVELS])
{
    size_t i = 0;
#ifdef __AVX512VBMI__
    __m512i tables[CHANNELS][4];
    for (int c = 0; c < CHANNELS; c++)
        for (int quarter = 0; quarter < 4; quarter++)
            tables[c][quarter] = _mm512_loadu_si512(table[c] + 64 * quarter);
    /* Numbers of channel 0 lie at every third place; 63 numbers are 21 pixels. */
    const __mmask64 first = 0x1249249249249249u, last = first << 2 & 0x7fffffffffffffffu;
    for (; i + 64 <= CHANNELS * count; i += 63) {
        __m512i at = _mm512_loadu_si512(pixels + i), to[CHANNELS];
        __mmask64 upper = _mm512_movepi8_mask(at);
        for (int c = 0; c < CHANNELS; c++)
            to[c] = _mm512_mask_mov_epi8(_mm512_permutex2var_epi8(tables[c][0], at, tables[c][1]), upper,
                                         _mm512_permutex2var_epi8(tables[c][2], at, tables[c][3]));
        at = _mm512_mask_mov_epi8(_mm512_mask_mov_epi8(to[1], first, to[0]), last, to[2]);
        _mm512_mask_storeu_epi8(pixels + i, 0x7fffffffffffffffu, at);
    }
#endif
    for (; i < CHANNELS * count; i += CHANNELS)
        for (size_t c = 0; c < CHANNELS; c++)
            pixels[i + c] = table[c][pixels[i + c]];
}

static void count_levels(uint32_t histogram[CHANNELS][LEVELS], const uint8_t *pixels, size_t count)
{
    memset(histogram, 0, sizeof(uint32_t[CHANNELS][LEVELS]));
    for (size_t i = 0; i < CHANNELS * count; i += CHANNELS)
        for (size_t c = 0; c < CHANNELS; c++)
            histogram[c][pixels[i + c]]++;
}

static void identity(uint8_t *table)
{
    for (int level = 0; level < LEVELS; level++)
        table[level] = (uint8_t)level;
}

/* Pillow's formula in its own order of rounding. */
static void stretching(uint8_t *table, const uint32_t *histogram)
{
    int low = 0, high = LEVELS - 1;
    while (low < LEVELS - 1 && histogram[low] == 0)
        low++;
    while (high > 0 && histogram[high] == 0)
        high--;
    if (high <= low) {
        identity(table);
        return;
    }
    double scale = 255.0 / (high - low), offset = -low * scale;
    for (int level = 0; level < LEVELS; level++) {
        double stretched = level * scale + offset;
        table[level] = (uint8_t)(stretched < 0 ? 0 : stretched > 255 ? 255 : stretched);
    }
}

void tone_stretch(uint8_t *pixels, size_t count)
{
    uint32_t histogram[CHANNELS][LEVELS];
    uint8_t table[CHANNELS][LEVELS];
    count_levels(histogram, pixels, count);
    for (int c = 0; c < CHANNELS; c++)
        stretching(table[c], histogram[c]);
    look_up(pixels, count, table);
}

/* The step leaves out the highest level present. Of few pixels the table passes 255, where Pillow clamps. */
static void equalising(uint8_t *table, const uint32_t *histogram, size_t count)
{
    int levels = 0, last = 0;
    for (int level = 0; level < LEVELS; level++)
        if (histogram[level]) {
            levels++;
            last = level;
        }
    size_t step = (count - histogram[last]) / 255;
    if (levels <= 1 || step == 0) {
        identity(table);
        return;
    }
    size_t below = step / 2;
    for (int level = 0; level < LEVELS; level++) {
        size_t to = below / step;
        table[level] = (uint8_t)(to < 255 ? to : 255);
        below += histogram[level];
    }
}

void tone_equalise(uint8_t *pixels, size_t count)
{
    uint32_t histogram[CHANNELS][LEVELS];
    uint8_t table[CHANNELS][LEVELS];
    count_levels(histogram, pixels, count);
    for (int c = 0; c < CHANNELS; c++)
        equalising(table[c], histogram[c], count);
    look_up(pixels, count, table);
}
