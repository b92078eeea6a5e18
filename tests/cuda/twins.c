/* Tensors on three sides, and the comparison of what the ops left in them. */
#include "tests/cuda/twins.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The largest shapes that a trial may draw. */
static const struct workload workload = {
    .batch = 8, .patches = 196, .patch_dim = 768, .dim = 1400, .hidden = 4096, .heads = 16, .classes = 20000};

/* SplitMix64. */
uint64_t random_word(struct twins *t)
{
    uint64_t z = t->random += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

size_t random_between(struct twins *t, size_t low, size_t high)
{
    return low + random_word(t) % (high - low + 1);
}

double random_number(struct twins *t)
{
    return (double)(random_word(t) >> 11) * 0x1p-52 - 1.0;
}

void assert_ok(bool ok, const struct error *error)
{
    if (!ok)
        fail_msg("%s", error->message);
}

double twins_bound(const struct twins *t)
{
    return t->dtype == DTYPE_FLOAT32 ? 1e-5 : 2e-2;
}

static struct twin *new_twin(struct twins *t, size_t count, enum dtype dtype, size_t raw_bytes)
{
    assert_true(t->count < MOST_TWINS);
    struct twin *twin = &t->twins[t->count++];
    *twin = (struct twin){.count = count, .dtype = dtype, .raw_bytes = raw_bytes};
    for (int side = 0; side < SIDES; side++) {
        struct error error;
        size_t bytes = raw_bytes ? raw_bytes : count * dtype_bytes(side == 0 ? DTYPE_FLOAT32 : dtype);
        assert_ok(t->sides[side].k->allocate(t->sides[side].ctx, &twin->data[side], bytes, "a test", &error), &error);
    }
    return twin;
}

/* The host array must stay until the copies are done: so they are waited for. */
static void upload(struct twins *t, struct twin *twin, int side, const void *host, size_t bytes)
{
    struct error error;
    const struct side *s = &t->sides[side];
    assert_ok(s->k->upload(s->ctx, twin->data[side], host, bytes, &error), &error);
    assert_ok(s->k->synchronise(s->ctx, &error), &error);
}

struct twin *twin_random(struct twins *t, size_t count, enum dtype dtype, double scale)
{
    struct twin *twin = new_twin(t, count, dtype, 0);
    float *values = malloc(count * sizeof *values);
    uint16_t *halves = malloc(count * sizeof *halves);
    assert_true(values && halves);
    for (size_t i = 0; i < count; i++) {
        uint32_t bits;
        values[i] = (float)(scale * random_number(t));
        memcpy(&bits, &values[i], sizeof bits);
        halves[i] = (uint16_t)(bits >> 16); /* truncated: which neighbour does not matter */
        bits = (uint32_t)halves[i] << 16;
        if (dtype == DTYPE_BFLOAT16)
            memcpy(&values[i], &bits, sizeof bits);
    }
    for (int side = 0; side < SIDES; side++) {
        bool half = side > 0 && dtype == DTYPE_BFLOAT16;
        upload(t, twin, side, half ? (void *)halves : (void *)values, count * (half ? 2 : 4));
    }
    free(values);
    free(halves);
    return twin;
}

struct twin *twin_raw(struct twins *t, const void *bytes, size_t count)
{
    struct twin *twin = new_twin(t, count, DTYPE_FLOAT32, count);
    for (int side = 0; side < SIDES; side++)
        upload(t, twin, side, bytes, count);
    return twin;
}

static void *download(struct twins *t, const struct twin *twin, int side)
{
    struct error error;
    const struct side *s = &t->sides[side];
    size_t bytes =
        twin->raw_bytes ? twin->raw_bytes : twin->count * dtype_bytes(side == 0 ? DTYPE_FLOAT32 : twin->dtype);
    void *host = malloc(bytes);
    assert_non_null(host);
    assert_ok(s->k->download(s->ctx, host, twin->data[side], bytes, &error), &error);
    assert_ok(s->k->synchronise(s->ctx, &error), &error);
    return host;
}

static float number(const void *host, enum dtype dtype, size_t i)
{
    if (dtype == DTYPE_FLOAT32)
        return ((const float *)host)[i];
    uint32_t bits = (uint32_t)((const uint16_t *)host)[i] << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static void compare_numbers(const char *what, const struct twin *twin, const float *expected, const void *found,
                            double bound)
{
    double squares = 0;
    for (size_t i = 0; i < twin->count; i++)
        squares += isnan(expected[i]) ? 0 : (double)expected[i] * (double)expected[i];
    double rms = sqrt(squares / (double)twin->count);
    for (size_t i = 0; i < twin->count; i++) {
        double x = (double)expected[i], y = (double)number(found, twin->dtype, i);
        if (!(fabs(x - y) <= bound * (fabs(x) + rms)) && !(isnan(x) && isnan(y)))
            fail_msg("%s[%zu of %zu]: CPU %.9g, CUDA %.9g (rms %.3g, bound %.1g)", what, i, twin->count, x, y, rms,
                     bound);
    }
}

void assert_twins_agree(struct twins *t, const char *what, const struct twin *twin, double bound)
{
    void *host[SIDES];
    for (int side = 0; side < SIDES; side++)
        host[side] = download(t, twin, side);
    size_t bytes = twin->raw_bytes ? twin->raw_bytes : twin->count * dtype_bytes(twin->dtype);
    if (memcmp(host[1], host[2], bytes) != 0)
        fail_msg("%s: two runs of the same CUDA call differ", what);
    if (twin->raw_bytes) {
        if (memcmp(host[0], host[1], bytes) != 0)
            fail_msg("%s: CPU and CUDA differ", what);
    } else {
        compare_numbers(what, twin, host[0], host[1], bound);
    }
    for (int side = 0; side < SIDES; side++)
        free(host[side]);
}

void assert_twins_same_bits(struct twins *t, const char *what, const struct twin *a, const struct twin *b)
{
    for (int side = 0; side < SIDES; side++) {
        void *first = download(t, a, side), *second = download(t, b, side);
        enum dtype dtype = side == 0 ? DTYPE_FLOAT32 : a->dtype;
        if (memcmp(first, second, a->count * dtype_bytes(dtype)) != 0)
            fail_msg("%s: the bits differ on side %d", what, side);
        free(first);
        free(second);
    }
}

void twins_release(struct twins *t)
{
    for (size_t i = 0; i < t->count; i++)
        for (int side = 0; side < SIDES; side++)
            t->sides[side].k->release(t->sides[side].ctx, t->twins[i].data[side]);
    t->count = 0;
}

void twins_each(void (*trial)(struct twins *t), int trials)
{
    for (int dtype = DTYPE_FLOAT32; dtype <= DTYPE_BFLOAT16; dtype++) {
        struct error error;
        struct twins t = {.dtype = (enum dtype)dtype, .random = 1 + (uint64_t)dtype};
        struct context_options options = {.dtype = DTYPE_FLOAT32, .threads = 1, .workload = workload};
        t.sides[0].k = kernels_cpu();
        assert_ok(t.sides[0].k->open(&t.sides[0].ctx, &options, &error), &error);
        options.dtype = (enum dtype)dtype;
        t.sides[1].k = kernels_cuda();
        assert_ok(t.sides[1].k->open(&t.sides[1].ctx, &options, &error), &error);
        t.sides[2] = t.sides[1];
        for (int i = 0; i < trials; i++) {
            trial(&t);
            twins_release(&t);
        }
        t.sides[1].k->close(t.sides[1].ctx);
        t.sides[0].k->close(t.sides[0].ctx);
    }
}
