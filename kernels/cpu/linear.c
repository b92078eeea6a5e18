#include <oneapi/dnnl/dnnl.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/rows.h"
#include "kernels/cpu/cpu.h"

enum product { PRODUCT_FORWARD, PRODUCT_FORWARD_BIAS, PRODUCT_INPUT_GRADIENT, PRODUCT_WEIGHT_GRADIENT };

/* One matrix product of one shape, ready to run: its memories get their addresses at each call. */
struct primitive {
    enum product product;
    size_t rows, in_dim, out_dim;
    dnnl_primitive_t primitive;
    size_t scratch_bytes;
    int argument_count;
    dnnl_exec_arg_t arguments[5]; /* left, right, destination, scratch, and bias where there is one */
};

/* A model has 6 shapes times 4 products; evaluation's last batch doubles that. When full, the oldest goes. */
enum { PRIMITIVES = 64 };

struct linear {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    struct primitive primitives[PRIMITIVES];
    size_t made;
};

static bool check(dnnl_status_t status, const char *what, struct error *error)
{
    if (status == dnnl_success)
        return true;
    return error_runtime(error, "oneDNN: %s failed with status %d%s", what, (int)status,
                         status == dnnl_unimplemented ? " (this CPU lacks the instructions)" : "");
}

static dnnl_data_type_t data_type(enum dtype dtype)
{
    return dtype == DTYPE_FLOAT32 ? dnnl_f32 : dnnl_bf16;
}

static bool matrix(dnnl_memory_desc_t *descriptor, size_t rows, size_t columns, bool transposed, dnnl_data_type_t type,
                   struct error *error)
{
    dnnl_dims_t dims = {(dnnl_dim_t)rows, (dnnl_dim_t)columns};
    return check(dnnl_memory_desc_init_by_tag(descriptor, 2, dims, type, transposed ? dnnl_ba : dnnl_ab),
                 "dnnl_memory_desc_init_by_tag", error);
}

/* The product as a matmul of row-major matrices, transposed by their strides:
 *     out [rows, out]           = in [rows, in]               * weight^T [in, out] + bias
 *     in_gradient [rows, in]    = out_gradient [rows, out]    * weight [out, in]
 *     weight_gradient [out, in] += out_gradient^T [out, rows] * in [rows, in]          (float32) */
static bool describe_product(dnnl_matmul_desc_t *matmul, enum product product, enum dtype dtype, size_t rows,
                             size_t in_dim, size_t out_dim, struct error *error)
{
    dnnl_data_type_t type = data_type(dtype);
    dnnl_memory_desc_t left, right, destination, bias;
    bool ok = matrix(&bias, 1, out_dim, false, type, error);
    switch (product) {
    case PRODUCT_FORWARD:
    case PRODUCT_FORWARD_BIAS:
        ok = ok && matrix(&left, rows, in_dim, false, type, error) &&
             matrix(&right, in_dim, out_dim, true, type, error) &&
             matrix(&destination, rows, out_dim, false, type, error);
        break;
    case PRODUCT_INPUT_GRADIENT:
        ok = ok && matrix(&left, rows, out_dim, false, type, error) &&
             matrix(&right, out_dim, in_dim, false, type, error) &&
             matrix(&destination, rows, in_dim, false, type, error);
        break;
    case PRODUCT_WEIGHT_GRADIENT:
        ok = ok && matrix(&left, out_dim, rows, true, type, error) &&
             matrix(&right, rows, in_dim, false, type, error) &&
             matrix(&destination, out_dim, in_dim, false, dnnl_f32, error);
        break;
    }
    return ok && check(dnnl_matmul_desc_init(matmul, &left, &right, product == PRODUCT_FORWARD_BIAS ? &bias : NULL,
                                             &destination),
                       "dnnl_matmul_desc_init", error);
}

/* Scratch comes from the workspace, so the primitive must not have its own; weight gradients are added to. */
static bool describe_attributes(dnnl_primitive_attr_t *attributes, enum product product, struct error *error)
{
    dnnl_post_ops_t post_ops = NULL;
    bool ok = check(dnnl_primitive_attr_create(attributes), "dnnl_primitive_attr_create", error) &&
              check(dnnl_primitive_attr_set_scratchpad_mode(*attributes, dnnl_scratchpad_mode_user),
                    "dnnl_primitive_attr_set_scratchpad_mode", error);
    if (ok && product == PRODUCT_WEIGHT_GRADIENT) {
        ok = check(dnnl_post_ops_create(&post_ops), "dnnl_post_ops_create", error) &&
             check(dnnl_post_ops_append_sum(post_ops, 1.0f), "dnnl_post_ops_append_sum", error) &&
             check(dnnl_primitive_attr_set_post_ops(*attributes, post_ops), "dnnl_primitive_attr_set_post_ops", error);
        if (post_ops)
            dnnl_post_ops_destroy(post_ops);
    }
    return ok;
}

static bool describe_primitive(dnnl_primitive_desc_t *description, dnnl_engine_t engine, enum product product,
                               enum dtype dtype, size_t rows, size_t in_dim, size_t out_dim, struct error *error)
{
    dnnl_matmul_desc_t matmul;
    dnnl_primitive_attr_t attributes = NULL;
    bool ok = describe_product(&matmul, product, dtype, rows, in_dim, out_dim, error) &&
              describe_attributes(&attributes, product, error) &&
              check(dnnl_primitive_desc_create(description, &matmul, attributes, engine, NULL),
                    "dnnl_primitive_desc_create of a matrix product", error);
    if (attributes)
        dnnl_primitive_attr_destroy(attributes);
    return ok;
}

static size_t scratch_bytes(const_dnnl_primitive_desc_t description)
{
    const dnnl_memory_desc_t *scratch = dnnl_primitive_desc_query_md(description, dnnl_query_scratchpad_md, 0);
    return scratch ? dnnl_memory_desc_get_size(scratch) : 0;
}

static void primitive_release(struct primitive *entry)
{
    for (int i = 0; i < entry->argument_count; i++)
        dnnl_memory_destroy(entry->arguments[i].memory);
    if (entry->primitive)
        dnnl_primitive_destroy(entry->primitive);
    memset(entry, 0, sizeof *entry);
}

static bool add_argument(struct primitive *entry, dnnl_engine_t engine, const_dnnl_primitive_desc_t description,
                         dnnl_query_t query, int index, int argument, struct error *error)
{
    const dnnl_memory_desc_t *memory = dnnl_primitive_desc_query_md(description, query, index);
    dnnl_exec_arg_t *slot = &entry->arguments[entry->argument_count];
    slot->arg = argument;
    if (!check(dnnl_memory_create(&slot->memory, memory, engine, DNNL_MEMORY_NONE), "dnnl_memory_create", error))
        return false;
    entry->argument_count++;
    return true;
}

static bool primitive_make(struct primitive *entry, struct context *ctx, enum product product, size_t rows,
                           size_t in_dim, size_t out_dim, struct error *error)
{
    dnnl_engine_t engine = ctx->linear->engine;
    dnnl_primitive_desc_t description = NULL;
    bool ok = describe_primitive(&description, engine, product, ctx->dtype, rows, in_dim, out_dim, error) &&
              check(dnnl_primitive_create(&entry->primitive, description), "dnnl_primitive_create", error) &&
              add_argument(entry, engine, description, dnnl_query_src_md, 0, DNNL_ARG_SRC, error) &&
              add_argument(entry, engine, description, dnnl_query_weights_md, 0, DNNL_ARG_WEIGHTS, error) &&
              add_argument(entry, engine, description, dnnl_query_dst_md, 0, DNNL_ARG_DST, error) &&
              add_argument(entry, engine, description, dnnl_query_scratchpad_md, 0, DNNL_ARG_SCRATCHPAD, error);
    if (ok && product == PRODUCT_FORWARD_BIAS)
        ok = add_argument(entry, engine, description, dnnl_query_weights_md, 1, DNNL_ARG_BIAS, error);
    if (ok) {
        entry->scratch_bytes = scratch_bytes(description);
        if (entry->scratch_bytes > ctx->workspace_bytes)
            ok = error_runtime(error,
                               "a %zu x %zu x %zu product needs %zu bytes of scratch, the workspace has %zu; such a "
                               "shape was not in the workload that the context was opened for",
                               rows, in_dim, out_dim, entry->scratch_bytes, ctx->workspace_bytes);
    }
    if (description)
        dnnl_primitive_desc_destroy(description);
    if (ok) {
        entry->product = product;
        entry->rows = rows, entry->in_dim = in_dim, entry->out_dim = out_dim;
    } else {
        primitive_release(entry);
    }
    return ok;
}

static struct primitive *find(struct context *ctx, enum product product, size_t rows, size_t in_dim, size_t out_dim,
                              struct error *error)
{
    struct linear *linear = ctx->linear;
    for (size_t i = 0; i < PRIMITIVES && i < linear->made; i++) {
        struct primitive *entry = &linear->primitives[i];
        if (entry->primitive && entry->product == product && entry->rows == rows && entry->in_dim == in_dim &&
            entry->out_dim == out_dim)
            return entry;
    }
    struct primitive *entry = &linear->primitives[linear->made % PRIMITIVES];
    primitive_release(entry);
    if (!primitive_make(entry, ctx, product, rows, in_dim, out_dim, error))
        return NULL;
    linear->made++;
    return entry;
}

static bool multiply(struct context *ctx, enum product product, const void *left, const void *right, void *destination,
                     const void *bias, size_t rows, size_t in_dim, size_t out_dim, struct error *error)
{
    /* oneDNN divides its work by omp_get_max_threads(), both when a primitive is made and when it runs. */
    int threads_before = omp_get_max_threads();
    omp_set_num_threads(ctx->threads);
    struct primitive *entry = find(ctx, product, rows, in_dim, out_dim, error);
    bool ok = entry != NULL;
    const void *addresses[5] = {left, right, destination, ctx->workspace, bias};
    for (int i = 0; ok && i < entry->argument_count; i++)
        ok = check(dnnl_memory_set_data_handle(entry->arguments[i].memory, (void *)(uintptr_t)addresses[i]),
                   "dnnl_memory_set_data_handle", error);
    ok = ok &&
         check(dnnl_primitive_execute(entry->primitive, ctx->linear->stream, entry->argument_count, entry->arguments),
               "dnnl_primitive_execute", error) &&
         check(dnnl_stream_wait(ctx->linear->stream), "dnnl_stream_wait", error);
    omp_set_num_threads(threads_before);
    return ok;
}

bool cpu_linear_forward(struct context *ctx, void *out, const void *in, const void *weight, const void *bias,
                        size_t rows, size_t in_dim, size_t out_dim, struct error *error)
{
    return multiply(ctx, bias ? PRODUCT_FORWARD_BIAS : PRODUCT_FORWARD, in, weight, out, bias, rows, in_dim, out_dim,
                    error);
}

bool cpu_linear_backward(struct context *ctx, void *in_gradient, float *weight_gradient, float *bias_gradient,
                         const void *out_gradient, const void *in, const void *weight, size_t rows, size_t in_dim,
                         size_t out_dim, struct error *error)
{
    return (!bias_gradient || rows_column_sums(ctx, bias_gradient, out_gradient, rows, out_dim, error)) &&
           (!in_gradient || multiply(ctx, PRODUCT_INPUT_GRADIENT, out_gradient, weight, in_gradient, NULL, rows, in_dim,
                                     out_dim, error)) &&
           multiply(ctx, PRODUCT_WEIGHT_GRADIENT, out_gradient, in, weight_gradient, NULL, rows, in_dim, out_dim,
                    error);
}

/* Every product of a model of this workload. */
static size_t planned_scratch(dnnl_engine_t engine, const struct context_options *options)
{
    const struct workload *load = &options->workload;
    size_t rows = load->batch * (load->patches + 1);
    const size_t shapes[][3] = {
        {load->batch * load->patches, load->patch_dim, load->dim},
        {rows, load->dim, 3 * load->dim},
        {rows, load->dim, load->dim},
        {rows, load->dim, load->hidden},
        {rows, load->hidden, load->dim},
        {load->batch, load->dim, load->classes},
    };
    size_t most = 0;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (enum product product = PRODUCT_FORWARD; product <= PRODUCT_WEIGHT_GRADIENT; product++) {
            struct error ignored;
            dnnl_primitive_desc_t description = NULL;
            if (describe_primitive(&description, engine, product, options->dtype, shapes[i][0], shapes[i][1],
                                   shapes[i][2], &ignored)) {
                size_t bytes = scratch_bytes(description);
                most = bytes > most ? bytes : most;
                dnnl_primitive_desc_destroy(description);
            }
        }
    return most;
}

size_t cpu_linear_workspace_bytes(const struct context_options *options)
{
    dnnl_engine_t engine = NULL;
    int threads_before = omp_get_max_threads();
    omp_set_num_threads(cpu_threads(options));
    size_t bytes = 0;
    if (dnnl_engine_create(&engine, dnnl_cpu, 0) == dnnl_success) {
        bytes = planned_scratch(engine, options);
        dnnl_engine_destroy(engine);
    }
    omp_set_num_threads(threads_before);
    return bytes;
}

bool cpu_linear_open(struct context *ctx, struct error *error)
{
    ctx->linear = calloc(1, sizeof *ctx->linear);
    if (!ctx->linear)
        return error_runtime(error, "out of memory for oneDNN's primitives");
    return check(dnnl_engine_create(&ctx->linear->engine, dnnl_cpu, 0), "dnnl_engine_create", error) &&
           check(dnnl_stream_create(&ctx->linear->stream, ctx->linear->engine, dnnl_stream_default_flags),
                 "dnnl_stream_create", error);
}

void cpu_linear_close(struct context *ctx)
{
    struct linear *linear = ctx->linear;
    if (!linear)
        return;
    for (size_t i = 0; i < PRIMITIVES; i++)
        primitive_release(&linear->primitives[i]);
    if (linear->stream)
        dnnl_stream_destroy(linear->stream);
    if (linear->engine)
        dnnl_engine_destroy(linear->engine);
    free(linear);
    ctx->linear = NULL;
}
