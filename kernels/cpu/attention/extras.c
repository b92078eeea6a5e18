/* Gradients of what a kind learns beside the projections: one query's part, and the sum over the tasks. */
#include "kernels/cpu/attention/attention.h"

double attention_scale_gradient(const float *product_gradient, const void *query, size_t head_dim, enum dtype dtype)
{
    double sum = 0;
    for (size_t i = 0; i < head_dim; i++)
        sum += (double)product_gradient[i] *
               (dtype == DTYPE_FLOAT32 ? load(query, i, DTYPE_FLOAT32) : load(query, i, DTYPE_BFLOAT16));
    return sum;
}

static void add(float *sum, const float *x, size_t count)
{
    for (size_t i = 0; i < count; i++)
        sum[i] += x[i];
}

void attention_reduce_extras(const struct attention_gradients *gradients, const struct attention_extras *extras,
                             const struct attention_shape *shape)
{
    size_t head_dim = shape->head_dim;
    for (size_t task = 0; task < shape->batch * shape->heads; task++, extras++) {
        for (enum attention_extra extra = 0; extra < EXTRA_SCALE; extra++)
            if (attention_learns(shape->kind, extra))
                add(gradients->extra[extra], extras->of_channel[extra], head_dim);
        if (attention_learns(shape->kind, EXTRA_SCALE))
            gradients->extra[EXTRA_SCALE][task % shape->heads] += (float)extras->scale;
    }
}
