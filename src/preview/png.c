/* PNG by zlib: each row is filtered in the way that leaves the smallest numbers, all are deflated, one chunk holds them
 * (ISO/IEC 15948). */
#include "src/preview/png.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum { PIXEL = 3, FILTERS = 5 };

/* What filter `kind` takes a number to be from its left, upper and upper left neighbours. */
static uint8_t predicted(int kind, int left, int up, int corner)
{
    if (kind == 3)
        return (uint8_t)((left + up) / 2);
    if (kind < 4)
        return (uint8_t)(kind == 1 ? left : kind == 2 ? up : 0);
    int guess = left + up - corner;
    int to_left = abs(guess - left), to_up = abs(guess - up), to_corner = abs(guess - corner);
    return (uint8_t)(to_left <= to_up && to_left <= to_corner ? left : to_up <= to_corner ? up : corner);
}

/* out [1 + bytes]: the filter's number and the row; returns the sum of what is left, as signed numbers. */
static unsigned long filter_row(uint8_t *out, int kind, const uint8_t *row, const uint8_t *above, size_t bytes)
{
    unsigned long sum = 0;
    *out++ = (uint8_t)kind;
    for (size_t i = 0; i < bytes; i++) {
        int left = i < PIXEL ? 0 : row[i - PIXEL], up = above ? above[i] : 0;
        int corner = above && i >= PIXEL ? above[i - PIXEL] : 0;
        out[i] = (uint8_t)(row[i] - predicted(kind, left, up, corner));
        sum += out[i] < 128 ? out[i] : 256u - out[i];
    }
    return sum;
}

static void filter(uint8_t *out, uint8_t *trial, const uint8_t *pixels, size_t height, size_t bytes)
{
    for (size_t y = 0; y < height; y++, out += 1 + bytes) {
        const uint8_t *row = pixels + y * bytes, *above = y > 0 ? row - bytes : NULL;
        unsigned long least = filter_row(out, 0, row, above, bytes);
        for (int kind = 1; kind < FILTERS; kind++) {
            unsigned long sum = filter_row(trial, kind, row, above, bytes);
            if (sum < least) {
                memcpy(out, trial, 1 + bytes);
                least = sum;
            }
        }
    }
}

static void store_word(uint8_t to[4], unsigned long word)
{
    for (int i = 0; i < 4; i++)
        to[i] = (uint8_t)(word >> (24 - 8 * i));
}

static void write_chunk(FILE *file, const char *type, const uint8_t *data, size_t bytes)
{
    uint8_t head[8], check[4];
    store_word(head, bytes);
    memcpy(head + 4, type, 4);
    uLong crc = crc32(0, head + 4, 4);
    if (bytes > 0)
        crc = crc32(crc, data, (uInt)bytes);
    store_word(check, crc);
    fwrite(head, 1, sizeof head, file);
    fwrite(data, 1, bytes, file);
    fwrite(check, 1, sizeof check, file);
}

bool png_write(FILE *file, const uint8_t *pixels, size_t height, size_t width, struct error *error)
{
    static const uint8_t signature[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
    const size_t row = PIXEL * width, filtered_bytes = height * (1 + row);
    uLongf packed_bytes = compressBound(filtered_bytes);
    uint8_t *filtered = malloc(filtered_bytes + 1 + row), *packed = malloc(packed_bytes);
    bool ok = filtered && packed;
    if (ok) {
        uint8_t header[13] = {[8] = 8, [9] = 2}; /* bits a channel, RGB */
        store_word(header, width);
        store_word(header + 4, height);
        filter(filtered, filtered + filtered_bytes, pixels, height, row);
        ok = compress2(packed, &packed_bytes, filtered, filtered_bytes, Z_BEST_COMPRESSION) == Z_OK;
        fwrite(signature, 1, sizeof signature, file);
        write_chunk(file, "IHDR", header, sizeof header);
        write_chunk(file, "IDAT", packed, packed_bytes);
        write_chunk(file, "IEND", header, 0);
    }
    free(filtered);
    free(packed);
    return ok || error_runtime(error, "no memory for a picture of %zu x %zu pixels", width, height);
}
