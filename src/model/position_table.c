/* Weights as data_loaders/image/resize.c plans them (Pillow's and PyTorch's rule), but exact: no integers, and no
 * clamping between the passes. */
#include "src/model/position_table.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Keys 1981, a = -0.5. */
static double bicubic(double x)
{
    const double a = -0.5;
    x = fabs(x);
    if (x < 1)
        return ((a + 2) * x - (a + 3)) * x * x + 1;
    return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

/* weights [to, from]: how much of each input every output takes, zero outside its taps. */
static void plan_axis(double *weights, size_t to, size_t from)
{
    double step = (double)from / (double)to, scale = step > 1 ? step : 1;
    memset(weights, 0, to * from * sizeof *weights);
    for (size_t o = 0; o < to; o++) {
        double centre = ((double)o + 0.5) * step, sum = 0;
        double *row = weights + o * from;
        long first = (long)(centre - 2 * scale + 0.5), end = (long)(centre + 2 * scale + 0.5);
        first = first < 0 ? 0 : first;
        end = end > (long)from ? (long)from : end;
        for (long i = first; i < end; i++)
            sum += row[i] = bicubic(((double)i - centre + 0.5) / scale);
        for (long i = first; i < end; i++)
            row[i] /= sum;
    }
}

/* out[o, i] = sum over k of weights[o, k] in[k, i] */
static void apply(double *out, const double *weights, const double *in, size_t outputs, size_t inputs, size_t width)
{
    memset(out, 0, outputs * width * sizeof *out);
    for (size_t o = 0; o < outputs; o++)
        for (size_t k = 0; k < inputs; k++) {
            double weight = weights[o * inputs + k];
            for (size_t i = 0; weight != 0 && i < width; i++)
                out[o * width + i] += weight * in[k * width + i];
        }
}

bool position_table_resample(double *out, struct position_grid to, const float *table, struct position_grid from,
                             size_t prefix, size_t dim, struct error *error)
{
    size_t patches = from.height * from.width;
    double *input = malloc(patches * dim * sizeof *input),
           *narrowed = malloc(from.height * to.width * dim * sizeof *out);
    double *across = malloc(to.width * from.width * sizeof *across);
    double *down = malloc(to.height * from.height * sizeof *down);
    bool ok = (input && narrowed && across && down) || error_runtime(error, "out of memory for the position table");
    if (ok) {
        for (size_t i = 0; i < prefix * dim; i++)
            out[i] = table[i];
        for (size_t i = 0; i < patches * dim; i++)
            input[i] = table[prefix * dim + i];
        plan_axis(across, to.width, from.width);
        plan_axis(down, to.height, from.height);
        for (size_t y = 0; y < from.height; y++)
            apply(narrowed + y * to.width * dim, across, input + y * from.width * dim, to.width, from.width, dim);
        apply(out + prefix * dim, down, narrowed, to.height, from.height, to.width * dim);
    }
    free(input);
    free(narrowed);
    free(across);
    free(down);
    return ok;
}

size_t position_table_side(size_t rows, size_t *prefix)
{
    for (*prefix = 0; *prefix <= 1 && rows > *prefix; (*prefix)++) {
        size_t side = (size_t)lround(sqrt((double)(rows - *prefix)));
        if (side * side == rows - *prefix)
            return side;
    }
    return 0;
}
