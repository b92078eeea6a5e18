/* The last step of attention's statistics: the records of all blocks of a head become one float64 record, combined with
 * what the caller has. One block a head; thread (slot, field) takes every 32nd record, then the slots are taken in
 * turn, so the order is fixed. Reads 44 bytes a record. */
#include "kernels/cuda/attention/records.cuh"

constexpr int RECORD_SLOTS = 32;

static __global__ void attention_forward_statistics(double *statistics, const attention_record *norms, int norm_blocks,
                                                    const attention_record *logits, int logit_blocks)
{
    __shared__ double of_slots[RECORD_SLOTS][ATTENTION_STATISTICS];
    int head = blockIdx.x, field = threadIdx.x, slot = threadIdx.y;
    bool of_norms = field <= STATISTIC_K_MAX;
    int blocks = of_norms ? norm_blocks : logit_blocks;
    const attention_record *records = (of_norms ? norms : logits) + (size_t)head * blocks;
    if (slot < blocks) {
        double total = records[slot].value[field];
        for (int i = slot + RECORD_SLOTS; i < blocks; i += RECORD_SLOTS)
            total = combine_statistic<double>(field, total, records[i].value[field]);
        of_slots[slot][field] = total;
    }
    __syncthreads();
    if (slot != 0)
        return;
    double *result = statistics + head * ATTENTION_STATISTICS + field, total = *result;
    for (int i = 0; i < min(blocks, RECORD_SLOTS); i++)
        total = combine_statistic<double>(field, total, of_slots[i][field]);
    *result = total;
}

bool attention_combine_statistics(struct context *ctx, double *statistics, const struct attention_record_list *norms,
                                  const struct attention_record_list *logits, size_t heads, struct error *error)
{
    size_t slots = minimum(maximum(norms->of_head, logits->of_head), RECORD_SLOTS);
    attention_forward_statistics<<<heads, dim3(ATTENTION_STATISTICS, slots), 0, ctx->compute>>>(
        statistics, norms->record, (int)norms->of_head, logits->record, (int)logits->of_head);
    return cuda_launched(ctx, "attention_forward_statistics", error);
}
