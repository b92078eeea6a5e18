/* Matrix products: oneDNN's matmul, one primitive a shape, made at its first use.
 *
 * Why matmul, and why on plain row-major matrices: the best of 30 runs on one thread of a Zen 4 shared with other work
 * (differences below 5 % mean nothing), oneDNN 2.6.3, GFLOP/s by CPU time at 1576 rows and 192 -> 576, 192 -> 192,
 * 192 -> 768, 768 -> 192. The 2048^3 product did 97 in float32 and 207 in bfloat16.
 *
 *                                                  float32                 bfloat16
 *     forward   matmul, weight as it lies          94  113   99  101       207  222  202  205
 *               matmul, weight repacked (any)      96  115  107  105       209  223  204  212
 *               inner_product                     100   89   88   91       194  207  192  203
 *     input     matmul                            102   93  104   91       208  228  216  203
 *     gradient  inner_product                     104  110  105  103       196  208  189  196
 *     weight    matmul, transposed by strides      95  100   96  102       188  208  197  207
 *     gradient  the same, 394 rows at a time      104  105  105  109       205  212  205  213
 *               matmul of a transposed copy       107  113  111  105       217  223  219  213
 *               inner_product                     102  104  105  111       195  203  192  208
 *
 * All run oneDNN's brgemm kernels (brg:avx512_core, brg:avx512_core_bf16) at the rate of the square product, but for
 * the weight gradient, whose left matrix oneDNN transposes slowly: transpose.c does that, a chunk of rows at a time,
 * and adds up the bias gradient on the way. Packing the weights once a step instead of at each product would gain some
 * 2 % of the forward products and cost a second copy of the weights. */
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/bfloat16.h"
#include "kernels/cpu/linear.h"
#include "kernels/cpu/signal_shield.h"
#include "kernels/cpu/transpose.h"

/* One matrix product of one shape, ready to run: its memories get their addresses at each call. */
struct primitive {
    enum product product;
    size_t rows, in_dim, out_dim;
    dnnl_primitive_t primitive;
    int argument_count;
    dnnl_exec_arg_t arguments[5]; /* left, right, destination, scratch, and bias where there is one */
};

/* Rows that a weight gradient takes at a time, so that their transposed copy stays in a cache. Its rows lie further
 * apart than they are long: at a power of two they would compete for the same few lines of the first-level cache. */
enum { CHUNK_ROWS = 256, CHUNK_STRIDE = CHUNK_ROWS + 16 };

/* A model has 11 shapes times 5 products; evaluation's batches add 11 each. When full, the oldest goes. */
enum { PRIMITIVES = 128 };

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

/* [rows, columns] whose neighbours in a row and in a column lie so many numbers apart. */
static bool matrix(dnnl_memory_desc_t *descriptor, size_t rows, size_t columns, size_t row_stride, size_t column_stride,
                   dnnl_data_type_t type, struct error *error)
{
    dnnl_dims_t dims = {(dnnl_dim_t)rows, (dnnl_dim_t)columns};
    dnnl_dims_t strides = {(dnnl_dim_t)row_stride, (dnnl_dim_t)column_stride};
    return check(dnnl_memory_desc_init_by_strides(descriptor, 2, dims, type, strides),
                 "dnnl_memory_desc_init_by_strides", error);
}

/*     out [rows, out]           = in [rows, in]               * weight^T [in, out] + bias
 *     in_gradient [rows, in]    = out_gradient [rows, out]    * weight [out, in]
 *     weight_gradient [out, in] += out_gradient^T [out, rows] * in [rows, in]          (float32)
 * weight^T is transposed by its strides; out_gradient^T is a copy whose rows lie CHUNK_STRIDE apart. */
static bool describe_product(dnnl_matmul_desc_t *matmul, enum product product, enum dtype dtype, size_t rows,
                             size_t in_dim, size_t out_dim, struct error *error)
{
    dnnl_data_type_t type = data_type(dtype);
    dnnl_memory_desc_t left, right, destination, bias;
    bool ok = matrix(&bias, 1, out_dim, out_dim, 1, type, error);
    switch (product) {
    case FORWARD:
    case FORWARD_BIAS:
        ok = ok && matrix(&left, rows, in_dim, in_dim, 1, type, error) &&
             matrix(&right, in_dim, out_dim, 1, in_dim, type, error) &&
             matrix(&destination, rows, out_dim, out_dim, 1, type, error);
        break;
    case INPUT_GRADIENT:
        ok = ok && matrix(&left, rows, out_dim, out_dim, 1, type, error) &&
             matrix(&right, out_dim, in_dim, in_dim, 1, type, error) &&
             matrix(&destination, rows, in_dim, in_dim, 1, type, error);
        break;
    default: /* of the weight */
        ok = ok && matrix(&left, out_dim, rows, CHUNK_STRIDE, 1, type, error) &&
             matrix(&right, rows, in_dim, in_dim, 1, type, error) &&
             matrix(&destination, out_dim, in_dim, in_dim, 1, dnnl_f32, error);
        break;
    }
    return ok &&
           check(dnnl_matmul_desc_init(matmul, &left, &right, product == FORWARD_BIAS ? &bias : NULL, &destination),
                 "dnnl_matmul_desc_init", error);
}

/* Scratch comes from the workspace, so the primitive must not have its own; weight gradients are added to. */
static bool describe_attributes(dnnl_primitive_attr_t *attributes, enum product product, struct error *error)
{
    dnnl_post_ops_t post_ops = NULL;
    bool ok = check(dnnl_primitive_attr_create(attributes), "dnnl_primitive_attr_create", error) &&
              check(dnnl_primitive_attr_set_scratchpad_mode(*attributes, dnnl_scratchpad_mode_user),
                    "dnnl_primitive_attr_set_scratchpad_mode", error);
    if (ok && product == WEIGHT_GRADIENT) {
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

static size_t transposed_bytes(size_t out_dim, enum dtype dtype)
{
    return cpu_align(out_dim * CHUNK_STRIDE * dtype_bytes(dtype));
}

/* What the product needs of the workspace: oneDNN's own scratch, after the transposed copy where there is one. */
static size_t product_bytes(const_dnnl_primitive_desc_t description, enum product product, size_t out_dim,
                            enum dtype dtype)
{
    const dnnl_memory_desc_t *scratch = dnnl_primitive_desc_query_md(description, dnnl_query_scratchpad_md, 0);
    return (scratch ? dnnl_memory_desc_get_size(scratch) : 0) +
           (product >= WEIGHT_GRADIENT ? transposed_bytes(out_dim, dtype) : 0);
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
    if (ok && product == FORWARD_BIAS)
        ok = add_argument(entry, engine, description, dnnl_query_weights_md, 1, DNNL_ARG_BIAS, error);
    if (ok) {
        size_t bytes = product_bytes(description, product, out_dim, ctx->dtype);
        if (bytes > ctx->workspace_bytes)
            ok = error_runtime(error,
                               "a %zu x %zu x %zu product needs %zu bytes of scratch, the workspace has %zu; such a "
                               "shape was not in the workload that the context was opened for",
                               rows, in_dim, out_dim, bytes, ctx->workspace_bytes);
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

struct operands {
    const void *left, *right, *bias; /* bias NULL: none */
    void *destination, *scratch;
};

static bool execute(struct context *ctx, const struct primitive *entry, struct error *error)
{
    sigset_t before;
    if (!signal_shield_raise(&before, error))
        return false;
    bool ok =
        check(dnnl_primitive_execute(entry->primitive, ctx->linear->stream, entry->argument_count, entry->arguments),
              "dnnl_primitive_execute", error) &&
        check(dnnl_stream_wait(ctx->linear->stream), "dnnl_stream_wait", error);
    struct error second;
    return signal_shield_lower(&before, ok ? error : &second) && ok;
}

static bool multiply(struct context *ctx, enum product product, const struct operands *operands, size_t rows,
                     size_t in_dim, size_t out_dim, struct error *error)
{
    /* oneDNN divides its work by omp_get_max_threads(), both when a primitive is made and when it runs. */
    int threads_before = omp_get_max_threads();
    omp_set_num_threads(ctx->threads);
    struct primitive *entry = find(ctx, product, rows, in_dim, out_dim, error);
    bool ok = entry != NULL;
    const void *addresses[5] = {operands->left, operands->right, operands->destination, operands->scratch,
                                operands->bias};
    for (int i = 0; ok && i < entry->argument_count; i++)
        ok = check(dnnl_memory_set_data_handle(entry->arguments[i].memory, (void *)(uintptr_t)addresses[i]),
                   "dnnl_memory_set_data_handle", error);
    ok = ok && execute(ctx, entry, error);
    omp_set_num_threads(threads_before);
    return ok;
}

bool cpu_linear_forward(struct context *ctx, const struct linear_forward *op, struct error *error)
{
    struct operands operands = {op->in, op->weight, op->bias, op->out, ctx->workspace};
    return multiply(ctx, op->bias ? FORWARD_BIAS : FORWARD, &operands, op->rows, op->in_dim, op->out_dim, error);
}

/* A thread takes columns, in whole tiles, so that it adds up each of its columns alone. */
static void transpose_chunk(struct context *ctx, float *bias_gradient, const void *out_gradient, size_t rows,
                            size_t out_dim)
{
    size_t blocks = (out_dim + TRANSPOSE_COLUMNS - 1) / TRANSPOSE_COLUMNS;
    struct transposition chunk = {ctx->workspace, CHUNK_STRIDE, bias_gradient, out_gradient, out_dim};
#pragma omp parallel for schedule(static, 1) num_threads(ctx->threads) if (ctx->threads > 1)
    for (int thread = 0; thread < ctx->threads; thread++) {
        size_t begin, end;
        cpu_span(blocks, ctx->threads, thread, &begin, &end);
        end = end * TRANSPOSE_COLUMNS < out_dim ? end * TRANSPOSE_COLUMNS : out_dim;
        transpose_and_sum(chunk, rows, begin * TRANSPOSE_COLUMNS, end, ctx->dtype);
    }
}

size_t linear_chunk_rows(size_t rows)
{
    size_t chunks = (rows + CHUNK_ROWS - 1) / CHUNK_ROWS, even = (rows + chunks - 1) / chunks;
    return (even + 15) / 16 * 16;
}

static bool weight_gradient_product(struct context *ctx, const struct linear_backward *op, struct error *error)
{
    enum dtype dtype = ctx->dtype;
    size_t in_dim = op->in_dim, out_dim = op->out_dim, step = linear_chunk_rows(op->rows);
    struct operands operands = {.left = ctx->workspace,
                                .destination = op->weight_gradient,
                                .scratch = ctx->workspace + transposed_bytes(out_dim, dtype)};
    if (transposed_bytes(out_dim, dtype) > ctx->workspace_bytes)
        return error_runtime(error, "%zu outputs were not in the workload that the context was opened for", out_dim);
    for (size_t first = 0; first < op->rows; first += step) {
        size_t count = op->rows - first < step ? op->rows - first : step;
        transpose_chunk(ctx, op->bias_gradient, const_at(op->out_gradient, first * out_dim, dtype), count, out_dim);
        operands.right = const_at(op->in, first * in_dim, dtype);
        enum product product = op->overwrite && first == 0 ? OVERWRITTEN_WEIGHT_GRADIENT : WEIGHT_GRADIENT;
        if (!multiply(ctx, product, &operands, count, in_dim, out_dim, error))
            return false;
    }
    return true;
}

bool cpu_linear_backward(struct context *ctx, const struct linear_backward *op, struct error *error)
{
    struct operands operands = {op->out_gradient, op->weight, NULL, op->in_gradient, ctx->workspace};
    return (!op->weight_gradient || weight_gradient_product(ctx, op, error)) &&
           (!op->in_gradient || multiply(ctx, INPUT_GRADIENT, &operands, op->rows, op->in_dim, op->out_dim, error));
}

size_t linear_product_bytes(dnnl_engine_t engine, enum product product, const struct context_options *options,
                            size_t rows, size_t in_dim, size_t out_dim)
{
    struct error ignored; /* open reports what is wrong with the CPU */
    dnnl_primitive_desc_t description = NULL;
    if (!describe_primitive(&description, engine, product, options->dtype, rows, in_dim, out_dim, &ignored))
        return 0;
    size_t bytes = product_bytes(description, product, out_dim, options->dtype);
    dnnl_primitive_desc_destroy(description);
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
