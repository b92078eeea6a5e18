/* Tokens from projected patches, and the CLS rows (kernels.h). Everything here is copies and sums in 16-byte packs. */
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/vector.cuh"

enum { EMBED_THREADS = 128, IMAGES_IN_FLIGHT = 4 };

/* A thread takes one pack of one token and walks through images_per_chunk images (grid.y chunks), so that the position,
 * in float32 twice as wide as an activation, is read once a chunk. 2 sizeof(T) bytes a number. */
template <typename T, int VEC>
__global__ void __launch_bounds__(EMBED_THREADS)
    embed_forward_kernel(T *out, const T *projected, const float *cls, const float *position, size_t batch,
                         size_t tokens, size_t dim, size_t images_per_chunk)
{
    size_t at = (blockIdx.x * (size_t)EMBED_THREADS + threadIdx.x) * VEC;
    if (at >= tokens * dim)
        return;
    size_t token = at / dim;
    pack<float, VEC> add = load_floats<VEC>(position, at / VEC);
    if (token == 0) {
        pack<float, VEC> first = load_floats<VEC>(cls, at / VEC);
#pragma unroll
        for (int i = 0; i < VEC; i++)
            add.value[i] += first.value[i];
    }
    size_t end = min(batch, (blockIdx.y + 1) * images_per_chunk);
    for (size_t image = blockIdx.y * images_per_chunk; image < end; image += IMAGES_IN_FLIGHT) {
        closed_pack<T, VEC> x[IMAGES_IN_FLIGHT];
#pragma unroll
        for (int n = 0; n < IMAGES_IN_FLIGHT; n++)
            if (token > 0 && image + n < end)
                x[n] = load_closed<VEC>(projected + (image + n) * (tokens - 1) * dim + at - dim, 0);
#pragma unroll
        for (int n = 0; n < IMAGES_IN_FLIGHT; n++) {
            if (image + n >= end)
                break;
            pack<T, VEC> row = open_pack<T, VEC>(x[n]);
#pragma unroll
            for (int i = 0; i < VEC; i++)
                row.value[i] = from_float<T>(add.value[i] + (token > 0 ? to_float(row.value[i]) : 0.0f));
            store_pack<VEC>(out + (image + n) * tokens * dim + at, 0, row);
        }
    }
}

bool cuda_embed_forward(struct context *ctx, const struct embed_forward *op, struct error *error)
{
    size_t dim = op->dim;
    size_t images_per_chunk = 64; /* the positions then cost 2 % beside bfloat16 activations */
    return with_access(ctx->dtype, dim, [&](auto a) {
        typedef typename decltype(a)::type T;
        dim3 grid(div_up((op->patches + 1) * dim, EMBED_THREADS * a.width), div_up(op->batch, images_per_chunk));
        embed_forward_kernel<T, a.width>
            <<<grid, EMBED_THREADS, 0, ctx->compute>>>((T *)op->out, (const T *)op->projected, op->cls, op->position,
                                                       op->batch, op->patches + 1, dim, images_per_chunk);
        return cuda_launched(ctx, "embed_forward", error);
    });
}

/* A batch is cut into at most EMBED_PARTS of at least SHORTEST_PART images, so that a large batch of a small model
 * gives every multiprocessor work and the sums of a part cost at most 1/32 of its activations' bytes. */
enum { EMBED_PARTS = 8, SHORTEST_PART = 64, EMBED_BACKWARD_THREADS = 64, BACKWARD_IN_FLIGHT = 8 };

static size_t images_a_part(size_t batch)
{
    return maximum(SHORTEST_PART, div_up(batch, EMBED_PARTS));
}

size_t cuda_embed_workspace_bytes(const struct context_options *options)
{
    const struct workload *w = &options->workload;
    return div_up(w->batch, images_a_part(w->batch)) * (w->patches + 1) * w->dim * sizeof(float);
}

/* As forward; a thread walks through the images of a part (grid.y parts). 2 sizeof(T) bytes a number; with one part, 8
 * bytes a position, else `partial` float32 [parts, tokens, dim] is written and embed_backward_finish adds it up. */
template <typename T, int VEC>
__global__ void __launch_bounds__(EMBED_BACKWARD_THREADS)
    embed_backward_kernel(T *projected_gradient, float *cls_gradient, float *position_gradient, float *partial,
                          const T *out_gradient, size_t batch, size_t tokens, size_t dim, size_t images_per_part)
{
    size_t at = (blockIdx.x * (size_t)EMBED_BACKWARD_THREADS + threadIdx.x) * VEC;
    if (at >= tokens * dim)
        return;
    size_t token = at / dim;
    float sum[VEC] = {};
    size_t end = min(batch, (blockIdx.y + 1) * images_per_part);
    for (size_t image = blockIdx.y * images_per_part; image < end; image += BACKWARD_IN_FLIGHT) {
        closed_pack<T, VEC> x[BACKWARD_IN_FLIGHT];
#pragma unroll
        for (int n = 0; n < BACKWARD_IN_FLIGHT; n++)
            if (image + n < end)
                x[n] = load_closed<VEC>(out_gradient + (image + n) * tokens * dim + at, 0);
#pragma unroll
        for (int n = 0; n < BACKWARD_IN_FLIGHT; n++) {
            if (image + n >= end)
                break;
            pack<T, VEC> row = open_pack<T, VEC>(x[n]);
#pragma unroll
            for (int i = 0; i < VEC; i++)
                sum[i] += to_float(row.value[i]);
            if (token > 0)
                store_pack<VEC>(projected_gradient + (image + n) * (tokens - 1) * dim + at - dim, 0, row);
        }
    }
    if (gridDim.y > 1) {
        store_floats(partial + blockIdx.y * tokens * dim, at / VEC, sum);
        return;
    }
    add_floats(position_gradient, at / VEC, sum);
    if (token == 0)
        add_floats(cls_gradient, at / VEC, sum);
}

/* Adds the parts' sums, in their order. A thread a pack; 4 bytes a number and part, and 8 a position. */
template <int VEC>
__global__ void __launch_bounds__(EMBED_THREADS)
    embed_backward_finish_kernel(float *cls_gradient, float *position_gradient, const float *partial, size_t parts,
                                 size_t tokens, size_t dim)
{
    size_t at = (blockIdx.x * (size_t)EMBED_THREADS + threadIdx.x) * VEC;
    if (at >= tokens * dim)
        return;
    float sum[VEC] = {};
    for (size_t part = 0; part < parts; part++) {
        pack<float, VEC> x = load_floats<VEC>(partial + part * tokens * dim, at / VEC);
#pragma unroll
        for (int i = 0; i < VEC; i++)
            sum[i] += x.value[i];
    }
    add_floats(position_gradient, at / VEC, sum);
    if (at < dim)
        add_floats(cls_gradient, at / VEC, sum);
}

bool cuda_embed_backward(struct context *ctx, const struct embed_backward *op, struct error *error)
{
    size_t dim = op->dim, tokens = op->patches + 1, images = images_a_part(op->batch);
    unsigned parts = div_up(op->batch, images);
    void *partial;
    if (!cuda_workspace(ctx, &partial, parts * tokens * dim * sizeof(float), "embed_backward", error))
        return false;
    return with_access(ctx->dtype, dim, [&](auto a) {
        typedef typename decltype(a)::type T;
        dim3 grid(div_up(tokens * dim, EMBED_BACKWARD_THREADS * a.width), parts);
        embed_backward_kernel<T, a.width><<<grid, EMBED_BACKWARD_THREADS, 0, ctx->compute>>>(
            (T *)op->projected_gradient, op->cls_gradient, op->position_gradient, (float *)partial,
            (const T *)op->out_gradient, op->batch, tokens, dim, images);
        if (!cuda_launched(ctx, "embed_backward", error))
            return false;
        if (parts == 1)
            return true;
        constexpr int width = a.width < 4 ? 1 : 4;
        embed_backward_finish_kernel<width>
            <<<div_up(tokens * dim, EMBED_THREADS * width), EMBED_THREADS, 0, ctx->compute>>>(
                op->cls_gradient, op->position_gradient, (const float *)partial, parts, tokens, dim);
        return cuda_launched(ctx, "embed_backward_finish", error);
    });
}

bool cuda_cls_gather(struct context *ctx, void *out, const void *in, size_t batch, size_t tokens, size_t dim,
                     struct error *error)
{
    size_t row_bytes = dim * dtype_bytes(ctx->dtype);
    ctx->launches.copies++;
    return CUDA_TRY(cudaMemcpy2DAsync(out, row_bytes, in, tokens * row_bytes, row_bytes, batch,
                                      cudaMemcpyDeviceToDevice, ctx->compute),
                    error);
}

/* A thread a pack of `out`, [batch, tokens, dim]: writes sizeof(T) bytes a number. */
template <typename T, int VEC>
__global__ void cls_scatter_kernel(T *out, const T *in, size_t count, size_t tokens, size_t dim)
{
    size_t at = (blockIdx.x * (size_t)blockDim.x + threadIdx.x) * VEC;
    if (at >= count)
        return;
    size_t row = at / dim;
    pack<T, VEC> x;
#pragma unroll
    for (int i = 0; i < VEC; i++)
        x.value[i] = from_float<T>(0.0f);
    if (row % tokens == 0)
        x = load_pack<VEC>(in + row / tokens * dim + at % dim, 0);
    store_pack<VEC>(out + at, 0, x);
}

bool cuda_cls_scatter(struct context *ctx, void *out, const void *in, size_t batch, size_t tokens, size_t dim,
                      struct error *error)
{
    return with_access(ctx->dtype, dim, [&](auto a) {
        typedef typename decltype(a)::type T;
        size_t count = batch * tokens * dim;
        cls_scatter_kernel<T, a.width>
            <<<div_up(count, 256 * a.width), 256, 0, ctx->compute>>>((T *)out, (const T *)in, count, tokens, dim);
        return cuda_launched(ctx, "cls_scatter", error);
    });
}

/* A thread a pack of `in`, [batch, dim]: 3 sizeof(T) bytes a number. */
template <typename T, int VEC>
__global__ void cls_add_kernel(T *out, const T *in, size_t count, size_t tokens, size_t dim)
{
    size_t at = (blockIdx.x * (size_t)blockDim.x + threadIdx.x) * VEC;
    if (at >= count)
        return;
    T *to = out + at / dim * tokens * dim + at % dim;
    pack<T, VEC> sum = load_pack<VEC>(to, 0), x = load_pack<VEC>(in + at, 0);
#pragma unroll
    for (int i = 0; i < VEC; i++)
        sum.value[i] = from_float<T>(to_float(sum.value[i]) + to_float(x.value[i]));
    store_pack<VEC>(to, 0, sum);
}

bool cuda_cls_add(struct context *ctx, void *out, const void *in, size_t batch, size_t tokens, size_t dim,
                  struct error *error)
{
    return with_access(ctx->dtype, dim, [&](auto a) {
        typedef typename decltype(a)::type T;
        cls_add_kernel<T, a.width><<<div_up(batch * dim, 256 * a.width), 256, 0, ctx->compute>>>(
            (T *)out, (const T *)in, batch * dim, tokens, dim);
        return cuda_launched(ctx, "cls_add", error);
    });
}
