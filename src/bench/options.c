/* What the benchmarks' command lines take besides numbers and words. */
#include "src/bench/options.h"

#include "kernels/kernels.h"

bool bench_take_dtype(void *field, const struct command_option *option, const char *text, struct error *error)
{
    bool half;
    if (!command_line_choice(&half, option, text, error))
        return false;
    *(enum dtype *)field = half ? DTYPE_BFLOAT16 : DTYPE_FLOAT32;
    return true;
}
