/* residual_layernorm on the CPU against float64, with and without each optional operand. */
#include "tests/unit/op_test.h"

/* One call in float64; optional arrays are NULL as in the op. */
struct layernorm {
    size_t rows, tokens, dim;
    const double *residual_in, *branch, *gamma, *path_scale, *weight, *bias;
    double *residual_out, *normed, *mean, *rstd;
    const double *residual_out_gradient, *normed_gradient; /* of the loss that is derived */
};

static void reference_forward(const struct layernorm *call)
{
    size_t dim = call->dim;
    for (size_t row = 0; row < call->rows; row++) {
        double *x = call->residual_out + row * dim, mean = 0, variance = 0;
        for (size_t i = 0; i < dim; i++) {
            double factor =
                (call->gamma ? call->gamma[i] : 1) * (call->path_scale ? call->path_scale[row / call->tokens] : 1);
            x[i] = call->residual_in[row * dim + i] + (call->branch ? factor * call->branch[row * dim + i] : 0);
            mean += x[i] / (double)dim;
        }
        for (size_t i = 0; i < dim; i++)
            variance += (x[i] - mean) * (x[i] - mean) / (double)dim;
        call->mean[row] = mean;
        call->rstd[row] = 1 / sqrt(variance + 1e-6);
        for (size_t i = 0; i < dim; i++)
            call->normed[row * dim + i] = (x[i] - mean) * call->rstd[row] * call->weight[i] + call->bias[i];
    }
}

static void reference_backward(const struct layernorm *call, double *residual_gradient, double *branch_gradient,
                               double *weight_gradient, double *bias_gradient, double *gamma_gradient)
{
    size_t dim = call->dim;
    for (size_t row = 0; row < call->rows; row++) {
        double sum = 0, projection = 0, scale = call->path_scale ? call->path_scale[row / call->tokens] : 1;
        for (size_t i = 0; i < dim; i++) {
            size_t at = row * dim + i;
            double xhat = (call->residual_out[at] - call->mean[row]) * call->rstd[row];
            sum += call->normed_gradient[at] * call->weight[i] / (double)dim;
            projection += call->normed_gradient[at] * call->weight[i] * xhat / (double)dim;
            weight_gradient[i] += call->normed_gradient[at] * xhat;
            bias_gradient[i] += call->normed_gradient[at];
        }
        for (size_t i = 0; i < dim; i++) {
            size_t at = row * dim + i;
            double xhat = (call->residual_out[at] - call->mean[row]) * call->rstd[row];
            residual_gradient[at] +=
                call->rstd[row] * (call->normed_gradient[at] * call->weight[i] - sum - xhat * projection);
            branch_gradient[at] = scale * (call->gamma ? call->gamma[i] : 1) * residual_gradient[at];
            if (call->gamma)
                gamma_gradient[i] += scale * residual_gradient[at] * call->branch[at];
        }
    }
}

/* What an op reads and writes, drawn at random. */
struct fixture {
    struct tensor *residual_in, *branch, *gamma, *path_scale, *weight, *bias, *residual_out, *normed, *mean, *rstd,
        *normed_gradient;
    struct layernorm call;
};

static struct fixture draw(struct op_test *test, size_t images, size_t tokens, size_t dim)
{
    size_t count = images * tokens * dim;
    struct fixture f = {
        .residual_in = tensor_random(test, count, test->dtype, 2),
        .branch = random_between(test, 0, 3) ? tensor_random(test, count, test->dtype, 1) : NULL,
        .weight = tensor_random(test, dim, DTYPE_FLOAT32, 1),
        .bias = tensor_random(test, dim, DTYPE_FLOAT32, 1),
        .residual_out = tensor_zeros(test, count, test->dtype),
        .normed = tensor_zeros(test, count, test->dtype),
        .mean = tensor_zeros(test, images * tokens, DTYPE_FLOAT32),
        .rstd = tensor_zeros(test, images * tokens, DTYPE_FLOAT32),
        .normed_gradient = tensor_random(test, count, test->dtype, 1),
    };
    if (f.branch && random_between(test, 0, 1))
        f.gamma = tensor_random(test, dim, DTYPE_FLOAT32, 1);
    if (f.branch && random_between(test, 0, 1)) {
        f.path_scale = tensor_zeros(test, images, DTYPE_FLOAT32);
        for (size_t i = 0; i < images; i++)
            tensor_set(f.path_scale, i, random_between(test, 0, 2) ? 1.25 : 0);
    }
    f.call = (struct layernorm){
        .rows = images * tokens,
        .tokens = tokens,
        .dim = dim,
        .residual_in = f.residual_in->exact,
        .branch = f.branch ? f.branch->exact : NULL,
        .gamma = f.gamma ? f.gamma->exact : NULL,
        .path_scale = f.path_scale ? f.path_scale->exact : NULL,
        .weight = f.weight->exact,
        .bias = f.bias->exact,
        .residual_out = f.residual_out->exact,
        .normed = f.normed->exact,
        .mean = f.mean->exact,
        .rstd = f.rstd->exact,
        .normed_gradient = f.normed_gradient->exact,
    };
    return f;
}

static void *data_of(const struct tensor *tensor)
{
    return tensor ? tensor->data : NULL;
}

static void forward_trial(struct op_test *test)
{
    struct error error;
    struct fixture f =
        draw(test, random_between(test, 1, 8), random_between(test, 1, 40), random_between(test, 2, 320));
    /* In place is allowed where there is a branch; without one, residual_out is not touched. */
    bool in_place = f.branch && random_between(test, 0, 1);
    struct tensor *out = in_place ? tensor_copy(test, f.residual_in) : f.residual_out;
    struct residual_layernorm_forward forward = {.residual_out = f.branch ? out->data : NULL,
                                                 .normed = f.normed->data,
                                                 .mean = f.mean->data,
                                                 .rstd = f.rstd->data,
                                                 .residual_in = in_place ? out->data : f.residual_in->data,
                                                 .branch = data_of(f.branch),
                                                 .gamma = data_of(f.gamma),
                                                 .path_scale = data_of(f.path_scale),
                                                 .weight = f.weight->data,
                                                 .bias = f.bias->data,
                                                 .rows = f.call.rows,
                                                 .tokens = f.call.tokens,
                                                 .dim = f.call.dim};
    assert_ok(test->k->residual_layernorm_forward(test->ctx, &forward, &error), &error);
    reference_forward(&f.call);
    if (f.branch)
        assert_close("residual_out", out, f.residual_out->exact, tolerance(test->dtype));
    /* The same as of residual_out by itself: what is normalised is what was stored, which the backward pass sees. */
    struct tensor *alone = tensor_zeros(test, f.normed->count, test->dtype);
    forward.normed = alone->data;
    forward.residual_in = f.branch ? out->data : f.residual_in->data;
    forward.residual_out = NULL;
    forward.branch = NULL;
    assert_ok(test->k->residual_layernorm_forward(test->ctx, &forward, &error), &error);
    assert_same_bits("normed of what was stored", f.normed, alone);
    assert_close("normed", f.normed, f.normed->exact, tolerance(test->dtype));
    assert_close("rstd", f.rstd, f.rstd->exact, tolerance(test->dtype));
}

static void backward_trial(struct op_test *test)
{
    struct error error;
    struct fixture f =
        draw(test, random_between(test, 1, 8), random_between(test, 1, 40), random_between(test, 2, 320));
    reference_forward(&f.call);
    for (size_t i = 0; i < f.residual_out->count; i++)
        tensor_set(f.residual_out, i, f.residual_out->exact[i]);
    for (size_t i = 0; i < f.mean->count; i++) {
        tensor_set(f.mean, i, f.mean->exact[i]);
        tensor_set(f.rstd, i, f.rstd->exact[i]);
    }
    bool with_branch = f.gamma || f.path_scale;
    struct tensor *residual[2], *branch[2], *weight[2], *bias[2], *gamma[2];
    residual[0] = tensor_random(test, f.residual_in->count, test->dtype, 1);
    weight[0] = tensor_random(test, f.call.dim, DTYPE_FLOAT32, 1);
    bias[0] = tensor_random(test, f.call.dim, DTYPE_FLOAT32, 1);
    gamma[0] = tensor_random(test, f.call.dim, DTYPE_FLOAT32, 1);
    residual[1] = tensor_copy(test, residual[0]), weight[1] = tensor_copy(test, weight[0]);
    bias[1] = tensor_copy(test, bias[0]), gamma[1] = tensor_copy(test, gamma[0]);
    for (int run = 0; run < 2; run++) {
        branch[run] = tensor_zeros(test, f.residual_in->count, test->dtype);
        struct residual_layernorm_backward backward = {.residual_gradient = residual[run]->data,
                                                       .branch_gradient = with_branch ? branch[run]->data : NULL,
                                                       .weight_gradient = weight[run]->data,
                                                       .bias_gradient = bias[run]->data,
                                                       .gamma_gradient = f.gamma ? gamma[run]->data : NULL,
                                                       .normed_gradient = f.normed_gradient->data,
                                                       .residual_out = f.residual_out->data,
                                                       .branch = f.gamma ? f.branch->data : NULL,
                                                       .mean = f.mean->data,
                                                       .rstd = f.rstd->data,
                                                       .gamma = data_of(f.gamma),
                                                       .path_scale = data_of(f.path_scale),
                                                       .weight = f.weight->data,
                                                       .rows = f.call.rows,
                                                       .tokens = f.call.tokens,
                                                       .dim = f.call.dim};
        assert_ok(test->k->residual_layernorm_backward(test->ctx, &backward, &error), &error);
    }
    reference_backward(&f.call, residual[0]->exact, branch[0]->exact, weight[0]->exact, bias[0]->exact,
                       gamma[0]->exact);
    assert_close("residual_gradient", residual[0], residual[0]->exact, tolerance(test->dtype));
    assert_close("weight_gradient", weight[0], weight[0]->exact, 2e-6);
    assert_close("bias_gradient", bias[0], bias[0]->exact, 2e-6);
    if (with_branch)
        assert_close("branch_gradient", branch[0], branch[0]->exact, tolerance(test->dtype));
    assert_close("gamma_gradient", gamma[0], gamma[0]->exact, tolerance(test->dtype));
    assert_same_bits("residual_gradient", residual[0], residual[1]);
    assert_same_bits("weight_gradient", weight[0], weight[1]);
    assert_same_bits("gamma_gradient", gamma[0], gamma[1]);
}

/* The backward pass makes `normed` again with the forward pass's bits, and its gradients do not depend on it. */
static void again_trial(struct op_test *test)
{
    struct error error;
    struct fixture f =
        draw(test, random_between(test, 1, 8), random_between(test, 1, 40), random_between(test, 2, 320));
    size_t count = f.residual_in->count, rows = f.call.rows, dim = f.call.dim;
    struct residual_layernorm_forward forward = {.residual_out = f.branch ? f.residual_out->data : NULL,
                                                 .normed = f.normed->data,
                                                 .mean = f.mean->data,
                                                 .rstd = f.rstd->data,
                                                 .residual_in = f.residual_in->data,
                                                 .branch = data_of(f.branch),
                                                 .gamma = data_of(f.gamma),
                                                 .path_scale = data_of(f.path_scale),
                                                 .weight = f.weight->data,
                                                 .bias = f.bias->data,
                                                 .rows = rows,
                                                 .tokens = f.call.tokens,
                                                 .dim = dim};
    assert_ok(test->k->residual_layernorm_forward(test->ctx, &forward, &error), &error);
    struct tensor *residual[2], *branch[2], *weight = tensor_zeros(test, dim, DTYPE_FLOAT32),
                                            *bias = tensor_zeros(test, dim, DTYPE_FLOAT32),
                                            *gamma = tensor_zeros(test, dim, DTYPE_FLOAT32);
    struct tensor *again = tensor_random(test, count, test->dtype, 1);
    residual[0] = tensor_random(test, count, test->dtype, 1);
    residual[1] = tensor_copy(test, residual[0]);
    for (int run = 0; run < 2; run++) {
        branch[run] = tensor_zeros(test, count, test->dtype);
        struct residual_layernorm_backward backward = {
            .residual_gradient = residual[run]->data,
            .branch_gradient = f.gamma || f.path_scale ? branch[run]->data : NULL,
            .normed = run == 1 ? again->data : NULL,
            .weight_gradient = weight->data,
            .bias_gradient = bias->data,
            .gamma_gradient = f.gamma ? gamma->data : NULL,
            .normed_gradient = f.normed_gradient->data,
            .residual_out = f.branch ? f.residual_out->data : f.residual_in->data,
            .branch = f.gamma ? f.branch->data : NULL,
            .mean = f.mean->data,
            .rstd = f.rstd->data,
            .gamma = data_of(f.gamma),
            .path_scale = data_of(f.path_scale),
            .weight = f.weight->data,
            .bias = run == 1 ? f.bias->data : NULL,
            .rows = rows,
            .tokens = f.call.tokens,
            .dim = dim};
        assert_ok(test->k->residual_layernorm_backward(test->ctx, &backward, &error), &error);
    }
    assert_same_bits("normed again", again, f.normed);
    assert_same_bits("residual_gradient", residual[1], residual[0]);
    assert_same_bits("branch_gradient", branch[1], branch[0]);
}

static double loss_of(void *argument)
{
    const struct layernorm *call = argument;
    double sum = 0;
    reference_forward(call);
    for (size_t i = 0; i < call->rows * call->dim; i++)
        sum += call->residual_out[i] * call->residual_out_gradient[i] + call->normed[i] * call->normed_gradient[i];
    return sum;
}

static void derivative_trial(struct op_test *test)
{
    struct fixture f = draw(test, random_between(test, 1, 3), random_between(test, 1, 3), random_between(test, 2, 6));
    size_t count = f.residual_in->count, dim = f.call.dim;
    struct tensor *residual = tensor_random(test, count, DTYPE_FLOAT32, 1),
                  *branch = tensor_zeros(test, count, DTYPE_FLOAT32);
    struct tensor *given = tensor_copy(test, residual);
    struct tensor *weight = tensor_zeros(test, dim, DTYPE_FLOAT32), *bias = tensor_zeros(test, dim, DTYPE_FLOAT32);
    struct tensor *gamma = tensor_zeros(test, dim, DTYPE_FLOAT32);
    f.call.residual_out_gradient = given->exact;
    reference_forward(&f.call);
    reference_backward(&f.call, residual->exact, branch->exact, weight->exact, bias->exact, gamma->exact);
    assert_derivative("residual_in", loss_of, &f.call, f.residual_in->exact, count, residual->exact);
    assert_derivative("weight", loss_of, &f.call, f.weight->exact, dim, weight->exact);
    assert_derivative("bias", loss_of, &f.call, f.bias->exact, dim, bias->exact);
    if (f.branch)
        assert_derivative("branch", loss_of, &f.call, f.branch->exact, count, branch->exact);
    if (f.gamma)
        assert_derivative("gamma", loss_of, &f.call, f.gamma->exact, dim, gamma->exact);
}

static void forward_matches_float64(void **state)
{
    (void)state;
    op_test_each(forward_trial, 20);
}

static void backward_matches_float64(void **state)
{
    (void)state;
    op_test_each(backward_trial, 20);
}

static void backward_makes_normed_again(void **state)
{
    (void)state;
    op_test_each(again_trial, 20);
}

static void reference_matches_central_differences(void **state)
{
    (void)state;
    op_test_each(derivative_trial, 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forward_matches_float64),
        cmocka_unit_test(backward_matches_float64),
        cmocka_unit_test(backward_makes_normed_again),
        cmocka_unit_test(reference_matches_central_differences),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
