/* The first number of a tensor that is NaN or infinite. */
#include "kernels/bfloat16.h"
#include "kernels/cpu/cpu.h"

ALWAYS_INLINE bool is_nonfinite(const void *x, size_t i, enum dtype dtype)
{
    return (bits_from_float(load(x, i, dtype)) & 0x7f800000u) == 0x7f800000u;
}

/* Whole blocks are tested without branches, as vectors; only a block that holds one is searched. */
ALWAYS_INLINE size_t first_nonfinite(const void *x, size_t count, enum dtype dtype)
{
    const size_t block = 1024;
    for (size_t begin = 0; begin < count; begin += block) {
        size_t end = begin + block < count ? begin + block : count;
        uint32_t found = 0;
        for (size_t i = begin; i < end; i++)
            found |= is_nonfinite(x, i, dtype);
        for (size_t i = begin; found && i < end; i++)
            if (is_nonfinite(x, i, dtype))
                return i;
    }
    return count;
}

bool cpu_find_nonfinite(struct context *ctx, size_t *first, const void *x, enum dtype dtype, size_t count,
                        struct error *error)
{
    (void)ctx, (void)error;
    *first =
        dtype == DTYPE_FLOAT32 ? first_nonfinite(x, count, DTYPE_FLOAT32) : first_nonfinite(x, count, DTYPE_BFLOAT16);
    return true;
}
