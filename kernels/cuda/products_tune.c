/* Which of cuBLASLt's offers is the fastest for a product, and whether its epilogue pays beside a kernel of ours.
 *
 * Everything is timed on random numbers in scratch memory: on zeros a GPU draws less power and clocks higher. What is
 * written there is thrown away. Where the GPU has no room for that, the caller's operands are read instead, and d is
 * written where the product does not accumulate, as the product itself will write it afterwards. */
#include <stdlib.h>

#include "kernels/cuda/products.h"

/* A sample is as many calls as fill SAMPLE_S, so that what an event costs does not show; a time is the median of them.
 * What needs HOPELESS times the best so far in its first calls is not sampled. Another offer than the first must be
 * GAIN faster, so that noise alone does not choose. */
enum { SAMPLES = 5, MOST_CALLS = 16 };
#define SAMPLE_S 200e-6
#define HOPELESS 2.0
#define GAIN     0.01

struct tuner {
    struct context *ctx;
    cudaEvent_t begin, end;
    void *memory; /* of the scratch operands; NULL: none */
};

/* ---- operands ---- */

static size_t rounded(size_t bytes)
{
    return (bytes + 255) / 256 * 256;
}

/* Numbers of 1/2 to 1 and -1/2 to -1 over `bytes`, a multiple of 256: some by the host, the rest copies of them. */
static bool fill(struct context *ctx, void *memory, size_t bytes, uint32_t dtype, struct error *error)
{
    enum { HOST_BYTES = 1 << 18 };
    size_t made = minimum(bytes, HOST_BYTES);
    uint32_t *host = malloc(HOST_BYTES);
    if (!host)
        return error_runtime(error, "out of memory");
    uint32_t sign_and_fraction = dtype == DTYPE_FLOAT32 ? 0x807fffff : 0x807f807f;
    uint32_t exponent = dtype == DTYPE_FLOAT32 ? 0x3f000000 : 0x3f003f00;
    uint64_t state = 1;
    for (size_t i = 0; i < made / 4; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u; /* Knuth's MMIX; its upper half is random enough */
        host[i] = ((uint32_t)(state >> 32) & sign_and_fraction) | exponent;
    }
    bool ok = CUDA_TRY(cudaMemcpyAsync(memory, host, made, cudaMemcpyHostToDevice, ctx->compute), error) &&
              CUDA_TRY(cudaStreamSynchronize(ctx->compute), error);
    free(host);
    for (size_t done = made; ok && done < bytes; done += minimum(done, bytes - done))
        ok = CUDA_TRY(cudaMemcpyAsync((char *)memory + done, memory, minimum(done, bytes - done),
                                      cudaMemcpyDeviceToDevice, ctx->compute),
                      error);
    return ok;
}

/* *found: the operands to time with. `inputs` of bytes 0: the caller's. *enough = false: there is no room. */
static bool make_operands(struct tuner *tuner, const struct product *p, const struct operands *callers,
                          struct operands *found, bool *enough, struct error *error)
{
    struct context *ctx = tuner->ctx;
    size_t in = dtype_bytes((enum dtype)p->dtype_in), out = dtype_bytes((enum dtype)p->dtype_out);
    size_t a = rounded(p->m * p->k * in), b = rounded(p->k * p->n * in), d = rounded(p->m * p->n * out);
    size_t ends = rounded(p->m * out) + rounded(p->n * sizeof(float)), available, total;
    if (!CUDA_TRY(cudaMemGetInfo(&available, &total), error))
        return false;
    bool own_inputs = a + b + d + ends <= available / 2, own_d = own_inputs || p->accumulate;
    size_t bytes = (own_inputs ? a + b : 0) + (own_d ? d : 0) + ends;
    *enough = bytes <= available / 2 && cudaMalloc(&tuner->memory, bytes) == cudaSuccess;
    if (!*enough) {
        tuner->memory = NULL;
        (void)cudaGetLastError();
        return true;
    }
    char *at = tuner->memory;
    *found = (struct operands){.sums = (float *)(void *)at, .bias = at + rounded(p->n * sizeof(float))};
    at += ends;
    found->d = own_d ? at : callers->d;
    at += own_d ? d : 0;
    found->a = own_inputs ? at : callers->a;
    found->b = own_inputs ? at + a : callers->b;
    return CUDA_TRY(cudaMemsetAsync(tuner->memory, 0, ends + (own_d ? d : 0), ctx->compute), error) &&
           (!own_inputs || fill(ctx, at, a + b, p->dtype_in, error));
}

/* ---- timing ---- */

/* The kth way to compute a plan: its offers, then in parts. */
static bool run_way(struct tuner *tuner, struct plan *plan, int way, const struct operands *operands, bool *refused,
                    struct error *error)
{
    bool ok = true;
    *refused = false;
    if (way == plan->offered)
        return product_run_parts(tuner->ctx, plan, operands, error);
    *refused = product_run_offer(tuner->ctx, plan, way, operands, &ok, error) != CUBLAS_STATUS_SUCCESS;
    return ok;
}

/* Seconds of one call, as the mean of `calls`. */
static bool sample(struct tuner *tuner, struct plan *plan, int way, const struct operands *operands, int calls,
                   double *seconds, bool *refused, struct error *error)
{
    float milliseconds = 0;
    if (!CUDA_TRY(cudaEventRecord(tuner->begin, tuner->ctx->compute), error))
        return false;
    *refused = false;
    for (int i = 0; i < calls && !*refused; i++)
        if (!run_way(tuner, plan, way, operands, refused, error))
            return false;
    if (!CUDA_TRY(cudaEventRecord(tuner->end, tuner->ctx->compute), error) ||
        !CUDA_TRY(cudaEventSynchronize(tuner->end), error) ||
        !CUDA_TRY(cudaEventElapsedTime(&milliseconds, tuner->begin, tuner->end), error))
        return false;
    *seconds = 1e-3 * (double)milliseconds / calls;
    return true;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* *seconds = the median, or what it began with where the way is hopeless beside `best` seconds (0: none yet). Whatever
 * a call is refused with here, the way is out, as long as the device is sound. */
static bool time_way(struct tuner *tuner, struct plan *plan, int way, const struct operands *operands, double best,
                     double *seconds, bool *refused, struct error *error)
{
    double samples[SAMPLES], first;
    if (!sample(tuner, plan, way, operands, 1, &first, refused, error)) /* loads the kernel */
        return false;
    if (*refused) {
        (void)cudaGetLastError();
        return CUDA_TRY(cudaStreamSynchronize(tuner->ctx->compute), error);
    }
    if (!sample(tuner, plan, way, operands, 1, &first, refused, error))
        return false;
    *seconds = first;
    if (*refused || (best > 0 && first > HOPELESS * best))
        return true;
    double wanted = first > 0 ? SAMPLE_S / first : MOST_CALLS;
    int calls = wanted < 1 ? 1 : wanted > MOST_CALLS ? MOST_CALLS : (int)wanted;
    for (int i = 0; i < SAMPLES && !*refused; i++)
        if (!sample(tuner, plan, way, operands, calls, &samples[i], refused, error))
            return false;
    if (!*refused) {
        qsort(samples, SAMPLES, sizeof *samples, ascending);
        *seconds = samples[SAMPLES / 2];
    }
    return true;
}

/* Offers that are refused now are out for good. */
static bool choose(struct tuner *tuner, struct plan *plan, const struct operands *operands, struct error *error)
{
    int ways = plan->offered + (plan->product.epilogue != PRODUCT_ALONE), fastest = -1;
    double best = 0;
    plan->first_s = 0;
    for (int way = 0; way < ways; way++) {
        double seconds = 0;
        bool refused = way < plan->offered && plan->offers[way].refused;
        if (!refused && !time_way(tuner, plan, way, operands, best, &seconds, &refused, error))
            return false;
        if (refused) {
            plan->offers[way].refused = true;
            continue;
        }
        if (fastest < 0)
            plan->first_s = seconds;
        if (fastest < 0 || seconds < (1 - GAIN) * best) {
            fastest = way;
            best = seconds;
        }
    }
    plan->chosen = fastest < plan->offered ? fastest : -1;
    plan->time_s = best;
    return true;
}

static bool tune(struct context *ctx, struct plan *plan, const struct operands *operands, struct error *error)
{
    struct tuner tuner = {.ctx = ctx};
    struct operands scratch;
    bool enough;
    plan->tuned = true;
    if (plan->offered == 0)
        return true;
    bool ok = CUDA_TRY(cudaEventCreate(&tuner.begin), error) && CUDA_TRY(cudaEventCreate(&tuner.end), error) &&
              make_operands(&tuner, &plan->product, operands, &scratch, &enough, error);
    if (ok && enough)
        ok = choose(&tuner, plan, &scratch, error) && CUDA_TRY(cudaStreamSynchronize(ctx->compute), error);
    cudaFree(tuner.memory);
    if (tuner.begin)
        cudaEventDestroy(tuner.begin);
    if (tuner.end)
        cudaEventDestroy(tuner.end);
    return ok;
}

bool product_tune(struct context *ctx, struct plan *plan, const struct operands *operands, struct error *error)
{
    enum cudaStreamCaptureStatus capture;
    struct plan *alone = NULL;
    if (plan->tuned)
        return true;
    if (!CUDA_TRY(cudaStreamIsCapturing(ctx->compute, &capture), error))
        return false;
    if (capture != cudaStreamCaptureStatusNone)
        return true;
    bool ok = plan->product.epilogue == PRODUCT_ALONE || product_plan_alone(ctx, &alone, plan, error);
    ok = ok && (!alone || alone->tuned || tune(ctx, alone, operands, error)) && tune(ctx, plan, operands, error);
    if (ok)
        return true;
    char what[PRODUCT_TEXT_BYTES];
    product_describe(&plan->product, what, sizeof what);
    return error_prefix(error, "timing %s", what);
}
