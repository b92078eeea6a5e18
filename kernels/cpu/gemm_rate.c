/* The best of some square products, by the same library as the linear ops but without their bookkeeping. */
#include <oneapi/dnnl/dnnl.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/gemm_rate.h"

struct product {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_primitive_t primitive;
    dnnl_exec_arg_t arguments[3]; /* left, right, result; oneDNN owns their memory */
};

static bool make_product(struct product *product, size_t size, enum dtype dtype)
{
    static const int names[3] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST};
    dnnl_memory_desc_t matrix;
    dnnl_matmul_desc_t matmul;
    dnnl_primitive_desc_t description = NULL;
    dnnl_dims_t dims = {(dnnl_dim_t)size, (dnnl_dim_t)size};
    bool ok = dnnl_engine_create(&product->engine, dnnl_cpu, 0) == dnnl_success &&
              dnnl_stream_create(&product->stream, product->engine, dnnl_stream_default_flags) == dnnl_success &&
              dnnl_memory_desc_init_by_tag(&matrix, 2, dims, dtype == DTYPE_FLOAT32 ? dnnl_f32 : dnnl_bf16, dnnl_ab) ==
                  dnnl_success &&
              dnnl_matmul_desc_init(&matmul, &matrix, &matrix, NULL, &matrix) == dnnl_success &&
              dnnl_primitive_desc_create(&description, &matmul, NULL, product->engine, NULL) == dnnl_success &&
              dnnl_primitive_create(&product->primitive, description) == dnnl_success;
    for (int i = 0; ok && i < 3; i++) {
        void *memory = NULL;
        product->arguments[i].arg = names[i];
        ok = dnnl_memory_create(&product->arguments[i].memory, &matrix, product->engine, DNNL_MEMORY_ALLOCATE) ==
                 dnnl_success &&
             dnnl_memory_get_data_handle(product->arguments[i].memory, &memory) == dnnl_success;
        if (ok)
            memset(memory, 0, dnnl_memory_desc_get_size(&matrix));
    }
    if (description)
        dnnl_primitive_desc_destroy(description);
    return ok;
}

static void release_product(struct product *product)
{
    for (int i = 0; i < 3; i++)
        if (product->arguments[i].memory)
            dnnl_memory_destroy(product->arguments[i].memory);
    if (product->primitive)
        dnnl_primitive_destroy(product->primitive);
    if (product->stream)
        dnnl_stream_destroy(product->stream);
    if (product->engine)
        dnnl_engine_destroy(product->engine);
}

/* The first product is not timed: it touches the memory. */
static bool time_product(const struct product *product, double budget_s, double *best_s)
{
    double begin = omp_get_wtime();
    *best_s = 0;
    for (int i = 0; i < 4 || omp_get_wtime() - begin < budget_s; i++) {
        double start = omp_get_wtime();
        if (dnnl_primitive_execute(product->primitive, product->stream, 3, product->arguments) != dnnl_success ||
            dnnl_stream_wait(product->stream) != dnnl_success)
            return false;
        double elapsed = omp_get_wtime() - start;
        if (i > 0 && (*best_s == 0 || elapsed < *best_s))
            *best_s = elapsed;
    }
    return *best_s > 0;
}

bool cpu_gemm_rate(double *flops, size_t size, int *threads, enum dtype dtype, double budget_s, struct error *error)
{
    if (!cpu_supports(dtype, error))
        return false;
    struct product product = {0};
    double best_s = 0;
    int threads_before = omp_get_max_threads();
    *threads = cpu_threads(*threads);
    omp_set_num_threads(*threads);
    bool ok = make_product(&product, size, dtype) && time_product(&product, budget_s, &best_s);
    omp_set_num_threads(threads_before);
    release_product(&product);
    if (!ok)
        return error_runtime(error, "oneDNN cannot run a product of %zu x %zu matrices (too little memory?)", size,
                             size);
    *flops = 2.0 * (double)size * (double)size * (double)size / best_s;
    return true;
}
