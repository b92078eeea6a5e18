/* Attention forward in bfloat16 where head_dim is more than 128; wide_sm80.cuh has the picture. The maximum of a row is
 * that of the keys so far; outputs are rescaled where it moves. */
#include "kernels/cuda/attention/records.cuh"
#include "kernels/cuda/attention/wide_sm80.cuh"

/* Row `group` + 8 i of the warp's 16. */
template <int D> struct wide_softmax {
    float out[D / 8][4];
    float maximum[2];         /* of the logits, base 2 */
    float sum[2], entropy[2]; /* this lane's part: of exponentials, and of exponential * logit */
};

/* Products with 16 keys to exponentials below the largest logit so far. */
template <int D, bool STATISTICS>
static __device__ __forceinline__ void exponentiate(float (&logits)[2][4], wide_softmax<D> &rows, float factor)
{
    float most[2] = {rows.maximum[0], rows.maximum[1]};
#pragma unroll
    for (int n = 0; n < 2; n++)
#pragma unroll
        for (int c = 0; c < 4; c++) {
            logits[n][c] *= factor;
            most[c / 2] = fmaxf(most[c / 2], logits[n][c]);
        }
    if (__any_sync(0xffffffffu, most[0] > rows.maximum[0] || most[1] > rows.maximum[1]))
#pragma unroll
        for (int i = 0; i < 2; i++) {
            most[i] = row_max(most[i]);
            float shrink = exp2_fast(rows.maximum[i] - most[i]);
            rows.maximum[i] = most[i];
            rows.sum[i] *= shrink;
            rows.entropy[i] *= shrink;
#pragma unroll
            for (int j = 0; j < D / 8; j++) {
                rows.out[j][2 * i] *= shrink;
                rows.out[j][2 * i + 1] *= shrink;
            }
        }
#pragma unroll
    for (int n = 0; n < 2; n++)
#pragma unroll
        for (int c = 0; c < 4; c++) {
            float exponential = exp2_fast(logits[n][c] - rows.maximum[c / 2]);
            rows.sum[c / 2] += exponential;
            if (STATISTICS)
                rows.entropy[c / 2] += exponential * logits[n][c];
            logits[n][c] = exponential;
        }
}

extern __shared__ __align__(128) uint8_t shared[];

template <int D, bool STATISTICS>
__global__ void __launch_bounds__(32 * WIDE_WARPS)
    attention_forward_wide(bfloat16 *out, float *logsumexp, attention_record *records, attention_operands<bfloat16> in,
                           int head_dim)
{
    wide_place<D, 1> place(shared, in.tokens, head_dim);
    lane_position at = place.at;
    wide_rows key = rows_at(in.key, in.row, in.tokens, head_dim);
    wide_rows value = rows_at(in.value, in.value_row, in.tokens, head_dim);
    place.copy(shared_address(place.own), rows_at(in.query, in.row, in.tokens, head_dim), place.first, 0, 1);
    place.copy_chunk(0, key, value);
    copy_commit();

    wide_softmax<D> rows = {};
    rows.maximum[0] = rows.maximum[1] = MASKED;
    for (int chunk = 0; chunk * 16 < in.tokens; chunk++) {
        copy_wait<0>();
        __syncthreads();
        if ((chunk + 1) * 16 < in.tokens)
            place.copy_chunk(chunk + 1, key, value);
        copy_commit();
        if (place.inside <= 0)
            continue;
        float logits[2][4];
        start_logits(logits, chunk * 16, in.tokens, at.pair);
        multiply_rows<D>(logits, place.own_matrices(0), place.stage(chunk, 0) + matrix_offset<D>(ACROSS, at.lane));
        exponentiate<D, STATISTICS>(logits, rows, in.scale * LOG2_E);
        add_rows<D>(rows.out, logits, place.stage(chunk, 1) + matrix_offset<D>(DOWN, at.lane));
    }

    row_summary entropies;
    float inverse[2], largest_logit = MASKED;
    float *row_logsumexp = logsumexp + ((size_t)blockIdx.z * in.heads + blockIdx.y) * in.tokens + place.first;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        bool inside = i * 8 + at.group < place.inside, owner = at.pair == 0 && inside;
        float sum = row_sum(rows.sum[i]), log_sum = (rows.maximum[i] + log2_fast(sum)) * LN_2;
        inverse[i] = __fdividef(1.0f, sum);
        if (owner)
            row_logsumexp[i * 8 + at.group] = log_sum;
        if (STATISTICS) {
            entropies.add(fmaxf(log_sum - row_sum(rows.entropy[i]) * inverse[i] * LN_2, 0.0f), owner);
            if (inside)
                largest_logit = fmaxf(largest_logit, rows.maximum[i] * LN_2);
        }
    }
    size_t image_at = (size_t)blockIdx.z * in.tokens * in.heads * head_dim;
    place.write(out + image_at + blockIdx.y * head_dim, in.heads * head_dim, rows.out, inverse);
    if (STATISTICS)
        write_record<4>(records + ((size_t)blockIdx.y * gridDim.z + blockIdx.z) * gridDim.x + blockIdx.x,
                        norm_summary(), norm_summary(), row_max(largest_logit), entropies, shared);
}

/* ---- launch ---- */

template <int D>
static bool forward(struct context *ctx, bfloat16 *out, float *logsumexp, struct attention_record_list *records,
                    const attention_operands<bfloat16> *in, const struct attention_shape *shape, struct error *error)
{
    wide_launch launch = launch_of<D, 1>(ctx, shape);
    auto kernel = records->record ? attention_forward_wide<D, true> : attention_forward_wide<D, false>;
    if (!allow_shared(kernel, launch.shared_bytes, error))
        return false;
    kernel<<<launch.grid, launch.threads, launch.shared_bytes, ctx->compute>>>(out, logsumexp, records->record, *in,
                                                                               (int)shape->head_dim);
    records->of_head = shape->batch * launch.grid.x;
    return cuda_launched(ctx, "attention_forward_wide", error);
}

bool attention_forward_wide(struct context *ctx, bfloat16 *out, float *logsumexp, struct attention_record_list *records,
                            const attention_operands<bfloat16> *in, const struct attention_shape *shape,
                            struct error *error)
{
    auto of_size = shape->head_dim <= 160   ? forward<160>
                   : shape->head_dim <= 192 ? forward<192>
                   : shape->head_dim <= 224 ? forward<224>
                                            : forward<256>;
    return of_size(ctx, out, logsumexp, records, in, shape, error);
}
