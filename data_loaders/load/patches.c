/* Cuts a picture into patches row by row: shift, mirror and padding on the way. */
#include "data_loaders/load/patches.h"

#include <string.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

typedef uint8_t bytes16 __attribute__((vector_size(16)));

#ifdef __AVX512VBMI__
typedef uint8_t bytes64 __attribute__((vector_size(64)));

/* 21 pixels a shuffle (vpermb): 63 of 64 lanes used, the last as below. Returns the pixels done. */
static size_t mirror_rgb_wide(uint8_t *to, const uint8_t *from, size_t width)
{
    size_t done = 0;
    for (; done + 21 <= width; done += 21) {
        bytes64 pixels;
        memcpy(&pixels, from + 3 * (width - done - 21), sizeof pixels);
        pixels = __builtin_shufflevector(pixels, pixels, 60, 61, 62, 57, 58, 59, 54, 55, 56, 51, 52, 53, 48, 49, 50, 45,
                                         46, 47, 42, 43, 44, 39, 40, 41, 36, 37, 38, 33, 34, 35, 30, 31, 32, 27, 28, 29,
                                         24, 25, 26, 21, 22, 23, 18, 19, 20, 15, 16, 17, 12, 13, 14, 9, 10, 11, 6, 7, 8,
                                         3, 4, 5, 0, 1, 2, 63);
        memcpy(to + 3 * done, &pixels, sizeof pixels);
    }
    return done;
}
#else
static size_t mirror_rgb_wide(uint8_t *to, const uint8_t *from, size_t width)
{
    (void)to, (void)from, (void)width;
    return 0;
}
#endif

/* Five RGB pixels a shuffle (pshufb on x86, tbl on Arm): 15 of 16 lanes used; the 16th is overwritten by the next
 * store or falls into the slack. */
static void mirror_rgb(uint8_t *to, const uint8_t *from, size_t width)
{
    size_t done = mirror_rgb_wide(to, from, width);
    for (; done + 5 <= width; done += 5) {
        bytes16 pixels;
        memcpy(&pixels, from + 3 * (width - done - 5), sizeof pixels);
        pixels = __builtin_shufflevector(pixels, pixels, 12, 13, 14, 9, 10, 11, 6, 7, 8, 3, 4, 5, 0, 1, 2, 15);
        memcpy(to + 3 * done, &pixels, sizeof pixels);
    }
    for (; done < width; done++)
        memcpy(to + 3 * done, from + 3 * (width - done - 1), 3);
}

void pixels_mirror(uint8_t *to, const uint8_t *from, size_t width, size_t channels)
{
    if (channels == 3) {
        mirror_rgb(to, from, width);
        return;
    }
    for (size_t x = 0; x < width; x++)
        to[x] = from[width - 1 - x];
}

/* One row of pixels, then one row of patches. */
static size_t row_bytes(size_t size, size_t channels)
{
    return size * channels + PIXELS_SLACK_BYTES;
}

size_t patches_scratch_bytes(size_t size, size_t patch, size_t channels)
{
    return row_bytes(size, channels) + size * patch * channels;
}

/* One row of the picture to its place in each of the `count` patches. The copy's length is a constant at each call
 * below, so that it becomes a few vector moves instead of a call. */
static inline __attribute__((always_inline)) void scatter(uint8_t *out, const uint8_t *row, size_t count,
                                                          size_t patch_row_bytes, size_t patch_bytes)
{
    for (size_t p = 0; p < count; p++)
        memcpy(out + p * patch_bytes, row + p * patch_row_bytes, patch_row_bytes);
}

static void scatter_row(uint8_t *out, const uint8_t *row, size_t count, size_t patch_row_bytes, size_t patch_bytes)
{
    switch (patch_row_bytes) {
    case 48: /* RGB, patch 16 */
        scatter(out, row, count, 48, patch_bytes);
        break;
    case 42: /* RGB, patch 14 */
        scatter(out, row, count, 42, patch_bytes);
        break;
    case 24: /* RGB, patch 8 */
        scatter(out, row, count, 24, patch_bytes);
        break;
    case 12: /* RGB, patch 4 */
        scatter(out, row, count, 12, patch_bytes);
        break;
    default:
        scatter(out, row, count, patch_row_bytes, patch_bytes);
    }
}

/* The picture's row as `size` pixels in a line: a pointer into the source where nothing has to move, else `row`. */
static const uint8_t *picture_row(const struct pixels *source, size_t size, size_t y, const struct view *view,
                                  uint8_t *row)
{
    const size_t channels = source->channels;
    const ptrdiff_t width = (ptrdiff_t)source->width, shift_x = view->shift_x;
    const ptrdiff_t source_y = (ptrdiff_t)y + view->shift_y;
    ptrdiff_t left = shift_x < 0 ? -shift_x : 0, right = width - shift_x; /* picture columns with source pixels */
    if (right > (ptrdiff_t)size)
        right = (ptrdiff_t)size;
    if (source_y < 0 || source_y >= (ptrdiff_t)source->height || left >= right) {
        memset(row, 0, size * channels);
        return row;
    }
    const uint8_t *line = source->bytes + (size_t)source_y * source->stride;
    if (!view->flip && left == 0 && right == (ptrdiff_t)size)
        return line + (size_t)shift_x * channels;
    size_t inside = (size_t)(right - left), before = (size_t)left, after = size - (size_t)right;
    if (view->flip) {
        before = size - (size_t)right;
        after = (size_t)left;
        pixels_mirror(row + before * channels, line + (size_t)(left + shift_x) * channels, inside, channels);
    } else {
        memcpy(row + before * channels, line + (size_t)(left + shift_x) * channels, inside * channels);
    }
    memset(row, 0, before * channels);
    memset(row + (size - after) * channels, 0, after * channels);
    return row;
}

/* Stores that pass the caches need not fetch what they overwrite, and leave the decoder's data there: half the time of
 * a cut (docs/data.md). */
static void copy_past_caches(uint8_t *restrict to, const uint8_t *restrict from, size_t bytes)
{
    size_t done = 0;
#ifdef __SSE2__
    done = (16 - (uintptr_t)to % 16) % 16;
    done = done < bytes ? done : bytes;
    memcpy(to, from, done);
    for (; done + 16 <= bytes; done += 16)
        _mm_stream_si128((__m128i *)(to + done), _mm_loadu_si128((const __m128i *)(from + done)));
#endif
    memcpy(to + done, from + done, bytes - done);
}

void patches_cut(uint8_t *out, const struct pixels *source, size_t size, size_t patch, const struct view *view,
                 uint8_t *scratch)
{
    const size_t grid = size / patch, patch_row_bytes = patch * source->channels;
    const size_t patch_bytes = patch * patch_row_bytes, band_bytes = grid * patch_bytes;
    uint8_t *row = scratch, *band = scratch + row_bytes(size, source->channels);
    for (size_t y = 0; y < size; y++) {
        const uint8_t *line = picture_row(source, size, y, view, row);
        scatter_row(band + (y % patch) * patch_row_bytes, line, grid, patch_row_bytes, patch_bytes);
        if ((y + 1) % patch == 0)
            copy_past_caches(out + y / patch * band_bytes, band, band_bytes);
    }
#ifdef __SSE2__
    _mm_sfence(); /* before another thread is told of it */
#endif
}
