/* What the benchmarks' command lines take besides numbers and words. */
#include "src/bench/options.h"

#include <string.h>

#include "kernels/products.h"

bool bench_take_dtype(void *field, const struct command_option *option, const char *text, struct error *error)
{
    bool half;
    if (!command_line_choice(&half, option, text, error))
        return false;
    *(enum dtype *)field = half ? DTYPE_BFLOAT16 : DTYPE_FLOAT32;
    return true;
}

bool bench_take_products(void *field, const struct command_option *option, const char *text, struct error *error)
{
    static const char *const names[] = {"auto", "tuned", "first", "plain"};
    for (int i = 0; i < 4; i++) {
        if (strcmp(text, names[i]) == 0) {
            *(enum products_mode *)field = (enum products_mode)i;
            return true;
        }
    }
    return error_input(error, "--%s: '%s' is not one of auto, tuned, first, plain", option->name, text);
}
