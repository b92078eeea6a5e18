/* The scratch that the matrix products of a workload need (linear.c). */
#include <omp.h>

#include "kernels/cpu/linear.h"

/* Every product of a model of this workload, for whole batches and for single images. */
static size_t planned_most(dnnl_engine_t engine, const struct context_options *options)
{
    const struct workload *load = &options->workload;
    size_t tokens = load->patches + 1, most = 0;
    const size_t shapes[][3] = {
        {load->patches, load->patch_dim, load->dim},
        {tokens, load->dim, 3 * load->dim},
        {tokens, load->dim, load->dim},
        {tokens, load->dim, load->hidden},
        {tokens, load->hidden, load->dim},
        {1, load->dim, load->classes},
        {tokens, load->dim, 2 * load->dim},
        {1, load->dim, load->dim},
        {1, load->dim, load->hidden},
        {1, load->hidden, load->dim}, /* of the last block */
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int product = FORWARD; product < PRODUCTS; product++)
            for (size_t images = load->batch;; images = 1) {
                size_t rows = images * shapes[i][0];
                size_t step = product >= WEIGHT_GRADIENT ? linear_chunk_rows(rows) : rows;
                size_t bytes =
                    linear_product_bytes(engine, (enum product)product, options, step, shapes[i][1], shapes[i][2]);
                most = bytes > most ? bytes : most;
                if (images == 1)
                    break;
            }
    return most;
}

/* The products of Muon: of a weight that lies as [n, most] with itself, of the result, [n, n], with itself, and of that
 * with the weight. */
static size_t planned_for_weights(dnnl_engine_t engine, const struct context_options *options)
{
    const struct workload *load = &options->workload;
    const size_t weights[][2] = {{load->dim, load->patch_dim},
                                 {3 * load->dim, load->dim},
                                 {load->dim, load->dim},
                                 {load->dim, load->hidden},
                                 {load->classes, load->dim}};
    size_t most = 0;
    for (size_t i = 0; load->weight_products && i < sizeof weights / sizeof *weights; i++) {
        size_t n = weights[i][0] < weights[i][1] ? weights[i][0] : weights[i][1];
        size_t side = weights[i][0] + weights[i][1] - n;
        const size_t bytes[] = {linear_product_bytes(engine, FORWARD, options, n, side, n),
                                linear_product_bytes(engine, FORWARD, options, n, n, n),
                                linear_product_bytes(engine, INPUT_GRADIENT, options, n, side, n)};
        for (size_t k = 0; k < sizeof bytes / sizeof *bytes; k++)
            most = bytes[k] > most ? bytes[k] : most;
    }
    return most;
}

size_t cpu_linear_workspace_bytes(const struct context_options *options)
{
    dnnl_engine_t engine = NULL;
    int threads_before = omp_get_max_threads();
    omp_set_num_threads(cpu_threads(options->threads));
    size_t bytes = 0;
    if (dnnl_engine_create(&engine, dnnl_cpu, 0) == dnnl_success) {
        size_t of_weights = planned_for_weights(engine, options);
        bytes = planned_most(engine, options);
        bytes = of_weights > bytes ? of_weights : bytes;
        dnnl_engine_destroy(engine);
    }
    omp_set_num_threads(threads_before);
    return bytes;
}
