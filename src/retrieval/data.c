/* Draws the tokens, classes and answers of the retrieval task, in vectors, from counters alone. */
#include "src/retrieval/data.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/random.h"

enum { TOKEN_NUMBERS = RETRIEVAL_TOKENS * RETRIEVAL_DIM, CHOICE_WORDS = 20 };

bool retrieval_batch_open(struct retrieval_batch *batch, size_t samples, struct error *error)
{
    *batch = (struct retrieval_batch){
        .samples = samples,
        .x = aligned_alloc(64, samples * TOKEN_NUMBERS * sizeof *batch->x),
        .classes = calloc(samples, RETRIEVAL_TOKENS),
        .answer = calloc(samples, sizeof *batch->answer),
        .labels = calloc(samples, sizeof *batch->labels),
        .biased = calloc(samples, sizeof *batch->biased),
    };
    return (batch->x && batch->classes && batch->answer && batch->labels && batch->biased) ||
           error_runtime(error, "out of memory for %zu samples", samples);
}

void retrieval_batch_close(struct retrieval_batch *batch)
{
    free(batch->x);
    free(batch->classes);
    free(batch->answer);
    free(batch->labels);
    free(batch->biased);
    *batch = (struct retrieval_batch){0};
}

/* ---- numbers ---- */

static void random_words(uint32_t *words, size_t count, uint64_t seed, uint64_t stream, uint64_t first)
{
    for (size_t i = 0; i < count / 4; i++)
        random_bits(words + 4 * i, seed, stream, first + i);
}

/* ln x for 2^-24 <= x <= 1, to 1 ulp or so: x = 2^e m with sqrt(1/2) <= m < sqrt 2, and Cephes' polynomial of m - 1.
 * Plain C without branches, so that gcc makes vector code of a loop over it. */
static inline float natural_logarithm(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    int32_t exponent = (int32_t)(bits - 0x3f3504f3u) >> 23;
    bits -= (uint32_t)exponent << 23;
    float e = (float)exponent, m;
    memcpy(&m, &bits, sizeof m);
    m -= 1.0f;
    float square = m * m;
    float p = 7.0376836292e-2f;
    p = fmaf(p, m, -1.1514610310e-1f);
    p = fmaf(p, m, 1.1676998740e-1f);
    p = fmaf(p, m, -1.2420140846e-1f);
    p = fmaf(p, m, 1.4249322787e-1f);
    p = fmaf(p, m, -1.6668057665e-1f);
    p = fmaf(p, m, 2.0000714765e-1f);
    p = fmaf(p, m, -2.4999993993e-1f);
    p = fmaf(p, m, 3.3333331174e-1f);
    p = fmaf(p * m, square, fmaf(e, -2.12194440e-4f, -0.5f * square));
    return fmaf(e, 0.693359375f, m + p);
}

/* A point of the unit circle from 27 bits: an angle of -pi/4 .. pi/4 (Cephes' polynomials), then one of the eight
 * symmetries of the square by three more bits. */
static inline void random_direction(float *across, float *along, uint32_t word)
{
    float angle = ((float)(word >> 8) * 0x1p-24f - 0.5f) * 1.57079633f, square = angle * angle;
    float sine =
        fmaf(fmaf(fmaf(-1.9515295891e-4f, square, 8.3321608736e-3f), square, -1.6666654611e-1f), square * angle, angle);
    float cosine = fmaf(fmaf(2.443315711809948e-5f, square, -1.388731625493765e-3f), square, 4.166664568298827e-2f);
    cosine = fmaf(cosine * square, square, fmaf(-0.5f, square, 1.0f));
    float first = word & 1 ? sine : cosine, second = word & 1 ? cosine : sine;
    *across = word & 2 ? -first : first;
    *along = word & 4 ? -second : second;
}

void retrieval_normals(float *out, const uint32_t *words, size_t count)
{
    enum { PAIRS = 16 };
    for (size_t i = 0; i < count; i += 2 * PAIRS, out += 2 * PAIRS, words += 2 * PAIRS) {
#pragma omp simd
        for (size_t j = 0; j < PAIRS; j++) {
            float uniform = (float)((words[j] >> 8) + 1) * 0x1p-24f, across, along;
            float radius = sqrtf(-2.0f * natural_logarithm(uniform));
            random_direction(&across, &along, words[PAIRS + j]);
            out[j] = radius * across;
            out[PAIRS + j] = radius * along;
        }
    }
}

void retrieval_bias_direction(float direction[RETRIEVAL_DIM], const struct retrieval_task *task, uint64_t seed)
{
    uint32_t words[2 * RETRIEVAL_DIM];
    float normals[2 * RETRIEVAL_DIM], square = 0;
    random_words(words, 2 * RETRIEVAL_DIM, seed, random_stream("retrieval bias"), 0);
    retrieval_normals(normals, words, 2 * RETRIEVAL_DIM);
    for (size_t i = 0; i < RETRIEVAL_DIM; i++)
        square += normals[i] * normals[i];
    for (size_t i = 0; i < RETRIEVAL_DIM; i++)
        direction[i] = normals[i] * (float)task->bias_length / sqrtf(square);
}

/* ---- samples ---- */

static uint8_t below(uint32_t word, uint32_t count)
{
    return (uint8_t)(((uint64_t)word * count) >> 32);
}

/* What is drawn besides the tokens: a permutation (Fisher and Yates), the answer's place, biased or not. */
static void draw_choices(struct retrieval_batch *batch, size_t sample, const uint32_t words[CHOICE_WORDS],
                         double biased_share)
{
    uint8_t *classes = batch->classes + sample * RETRIEVAL_TOKENS;
    for (int i = 0; i < RETRIEVAL_TOKENS; i++)
        classes[i] = (uint8_t)i;
    for (uint32_t i = RETRIEVAL_TOKENS - 1; i > 0; i--) {
        uint8_t other = below(words[i], i + 1), kept = classes[i];
        classes[i] = classes[other];
        classes[other] = kept;
    }
    batch->answer[sample] = below(words[16], RETRIEVAL_TOKENS);
    batch->labels[sample] = classes[batch->answer[sample]];
    batch->biased[sample] = words[17] * 0x1p-32 < biased_share;
}

static void draw_tokens(float *x, uint64_t seed, uint64_t stream, uint64_t sample)
{
    uint32_t words[TOKEN_NUMBERS];
    random_words(words, TOKEN_NUMBERS, seed, stream, sample * (TOKEN_NUMBERS / 4));
    retrieval_normals(x, words, TOKEN_NUMBERS);
}

void retrieval_draw(struct retrieval_batch *batch, const struct retrieval_task *task, uint64_t seed, const char *stream,
                    uint64_t first, enum retrieval_bias bias)
{
    float direction[RETRIEVAL_DIM];
    uint32_t words[CHOICE_WORDS];
    uint64_t tokens = random_stream(stream), choices = tokens ^ random_stream("choices");
    float around = sqrtf((float)task->biased_variance), length = sqrtf((float)task->answer_variance);
    double share = bias == RETRIEVAL_MIXED ? task->biased_share : bias == RETRIEVAL_BIASED ? 1.0 : 0.0;
    retrieval_bias_direction(direction, task, seed);
    for (size_t sample = 0; sample < batch->samples; sample++) {
        float *x = batch->x + sample * TOKEN_NUMBERS;
        random_words(words, CHOICE_WORDS, seed, choices, (first + sample) * (CHOICE_WORDS / 4));
        draw_choices(batch, sample, words, share);
        draw_tokens(x, seed, tokens, first + sample);
        x += batch->answer[sample] * RETRIEVAL_DIM;
        for (size_t i = 0; i < RETRIEVAL_DIM; i++)
            x[i] = batch->biased[sample] ? direction[i] + around * x[i] : length * x[i];
    }
}
