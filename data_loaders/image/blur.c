/* Box filters as weighted sums of whole lines: of rows, or of one row moved by some pixels. */
#include "data_loaders/image/blur.h"

#include <math.h>
#include <string.h>

#include "data_loaders/image/lanes.h"

enum { CHANNELS = 3, PASSES = 3 };

/* A box of 2 radius + 1 pixels of weight `whole` and one more on each side of weight `part`, 24 bits of fraction. */
struct box {
    ptrdiff_t radius;
    uint32_t whole, part;
};

/* The box whose three passes have the variance of the Gaussian (Gwosdek et al., 2011), rounded where Pillow rounds. */
static struct box box_of(float sigma)
{
    float variance = sigma * sigma / PASSES;
    float length = (float)sqrt(12.0 * (double)variance + 1.0);
    float low = (float)floor(((double)length - 1.0) / 2.0);
    float part = (2 * low + 1) * (low * (low + 1) - 3 * variance);
    part /= 6 * (variance - (low + 1) * (low + 1));
    float radius = low + part;
    struct box box = {.radius = (ptrdiff_t)radius};
    box.whole = (uint32_t)((float)(1 << 24) / (radius * 2 + 1));
    box.part = ((1u << 24) - (uint32_t)(2 * box.radius + 1) * box.whole) / 2;
    return box;
}

static inline ptrdiff_t inside(ptrdiff_t at, ptrdiff_t extent)
{
    return at < 0 ? 0 : at >= extent ? extent - 1 : at;
}

/* Numbers first ... count of one line from the 2 radius + 3 lines about it. */
static void box_numbers(uint8_t *restrict out, const uint8_t *const *from, size_t first, size_t count,
                        const struct box *box)
{
    const ptrdiff_t last = 2 * box->radius + 2;
    for (size_t i = first; i < count; i++) {
        uint32_t sum = 0, edges = (uint32_t)from[0][i] + from[last][i];
        for (ptrdiff_t line = 1; line < last; line++)
            sum += from[line][i];
        out[i] = (uint8_t)((sum * box->whole + edges * box->part + (1u << 23)) >> 24);
    }
}

#ifdef __AVX2__
enum { LOW_BITS = 12, RADIUS_MOST = 63 /* sums fit an int16 */ };

/* 16 numbers: sums and edges in pairs, times the high and the low half of the weights. */
static inline __attribute__((always_inline)) __m256i weigh(__m256i sums, __m256i edges, __m256i high, __m256i low)
{
    const __m256i half = _mm256_set1_epi32(1 << (23 - LOW_BITS));
    __m256i first = _mm256_unpacklo_epi16(sums, edges), last = _mm256_unpackhi_epi16(sums, edges);
    first = add_products(_mm256_slli_epi32(add_products(half, first, high), LOW_BITS), first, low);
    last = add_products(_mm256_slli_epi32(add_products(half, last, high), LOW_BITS), last, low);
    return _mm256_packus_epi32(_mm256_srli_epi32(first, 24), _mm256_srli_epi32(last, 24));
}

static inline __attribute__((always_inline)) __m256i load_shorts(const uint8_t *from)
{
    return _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)from));
}

/* `radius` is a constant at the calls that matter, so that the sums unroll. Returns how many numbers are done. */
static inline __attribute__((always_inline)) size_t box_vectors(uint8_t *restrict out, const uint8_t *const *from,
                                                                size_t count, ptrdiff_t radius, const struct box *box)
{
    const uint32_t mask = (1u << LOW_BITS) - 1;
    const __m256i high = _mm256_set1_epi32((int)((box->part >> LOW_BITS) << 16 | box->whole >> LOW_BITS));
    const __m256i low = _mm256_set1_epi32((int)((box->part & mask) << 16 | (box->whole & mask)));
    size_t i = 0;
    for (; i + 32 <= count; i += 32) {
        __m256i halves[2];
        for (size_t half = 0; half < 2; half++) {
            const size_t at = i + 16 * half;
            __m256i sums = load_shorts(from[1] + at);
            for (ptrdiff_t line = 2; line < 2 * radius + 2; line++)
                sums = _mm256_add_epi16(sums, load_shorts(from[line] + at));
            __m256i edges = _mm256_add_epi16(load_shorts(from[0] + at), load_shorts(from[2 * radius + 2] + at));
            halves[half] = weigh(sums, edges, high, low);
        }
        __m256i bytes = _mm256_packus_epi16(halves[0], halves[1]);
        _mm256_storeu_si256((__m256i *)(out + i), _mm256_permute4x64_epi64(bytes, 0xd8));
    }
    return i;
}

static void box_line(uint8_t *restrict out, const uint8_t *const *from, size_t count, const struct box *box)
{
    size_t done = 0;
    if (box->radius == 0)
        done = box_vectors(out, from, count, 0, box);
    else if (box->radius == 1)
        done = box_vectors(out, from, count, 1, box);
    else if (box->radius <= RADIUS_MOST)
        done = box_vectors(out, from, count, box->radius, box);
    box_numbers(out, from, done, count, box);
}
#else
static void box_line(uint8_t *restrict out, const uint8_t *const *from, size_t count, const struct box *box)
{
    box_numbers(out, from, 0, count, box);
}
#endif

/* Down the columns: each line is a row. */
static void blur_columns(uint8_t *restrict out, const uint8_t *restrict in, size_t height, size_t stride,
                         const struct box *box)
{
    const uint8_t *from[2 * box->radius + 3];
    for (size_t y = 0; y < height; y++) {
        for (ptrdiff_t k = 0; k < 2 * box->radius + 3; k++)
            from[k] = in + (size_t)inside((ptrdiff_t)y + k - box->radius - 1, (ptrdiff_t)height) * stride;
        box_line(out + y * stride, from, stride, box);
    }
}

/* Repeats the first and the last of `width` pixels before and behind them. */
static void extend(uint8_t *row, size_t width, size_t times)
{
    const uint8_t *last = row + CHANNELS * (width - 1);
    for (size_t k = 1; k <= times; k++) {
        memcpy(row - CHANNELS * k, row, CHANNELS);
        memcpy(row + CHANNELS * (width - 1 + k), last, CHANNELS);
    }
}

/* Along each row: the lines are the row itself, moved by whole pixels. */
static void blur_rows(uint8_t *out, const uint8_t *pixels, size_t height, size_t width, const struct box *box)
{
    const size_t more = (size_t)box->radius + 1, before = CHANNELS * more, stride = CHANNELS * width;
    uint8_t rows[2][stride + 2 * before];
    const uint8_t *from[2][2 * more + 1];
    for (size_t i = 0; i < 2; i++)
        for (size_t k = 0; k <= 2 * more; k++)
            from[i][k] = rows[i] + CHANNELS * k;
    for (size_t y = 0; y < height; y++) {
        memcpy(rows[0] + before, pixels + y * stride, stride);
        extend(rows[0] + before, width, more);
        box_line(rows[1] + before, from[0], stride, box);
        extend(rows[1] + before, width, more);
        box_line(rows[0] + before, from[1], stride, box);
        extend(rows[0] + before, width, more);
        box_line(out + y * stride, from[0], stride, box);
    }
}

void blur_gaussian(uint8_t *pixels, uint8_t *scratch, size_t height, size_t width, float radius)
{
    if (!(radius > 0))
        return;
    const struct box box = box_of(radius);
    const size_t stride = CHANNELS * width;
    blur_rows(scratch, pixels, height, width, &box);
    blur_columns(pixels, scratch, height, stride, &box);
    blur_columns(scratch, pixels, height, stride, &box);
    blur_columns(pixels, scratch, height, stride, &box);
}
