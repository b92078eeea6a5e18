/* Random tensors, uploaded a piece at a time. */
#include "src/bench/random.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/random.h"

/* A prime, so that rows of a matrix do not begin with the same numbers. */
enum { PIECE = 262139 };

static void draw(void *piece, enum dtype dtype)
{
    for (size_t i = 0; i < PIECE; i++) {
        double pair[2];
        random_uniform_pair(pair, 0, random_stream("bench"), i);
        float value = (float)(3.4 * pair[0] - 1.7);
        uint32_t bits;
        memcpy(&bits, &value, sizeof bits);
        if (dtype == DTYPE_FLOAT32)
            ((float *)piece)[i] = value;
        else
            ((uint16_t *)piece)[i] = (uint16_t)(bits >> 16);
    }
}

bool bench_random(const struct kernels *kernels, struct context *ctx, void **tensor, size_t count, enum dtype dtype,
                  struct error *error)
{
    size_t bytes = count * dtype_bytes(dtype), piece_bytes = PIECE * dtype_bytes(dtype);
    void *piece = malloc(piece_bytes);
    if (!piece)
        return error_runtime(error, "out of memory for the input");
    draw(piece, dtype);
    bool ok = kernels->allocate(ctx, tensor, bytes, "a tensor", error);
    for (size_t done = 0; ok && done < bytes; done += piece_bytes) {
        size_t now = bytes - done < piece_bytes ? bytes - done : piece_bytes;
        ok = kernels->upload(ctx, (char *)*tensor + done, piece, now, error);
    }
    ok = ok && kernels->synchronise(ctx, error);
    free(piece);
    return ok;
}
