/* What the tests of the model share: a tiny one on the CPU with images, labels and stochastic depth, its loss and its
 * gradient. */
#ifndef QUEST_TESTS_MODEL_TEST_H
#define QUEST_TESTS_MODEL_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "src/base/random.h"
#include "src/model/model.h"

enum { BATCH = 3, CLASSES = 7, IMAGE = 16, PATCH = 4, DEPTH = 2, PIXELS = BATCH * IMAGE * IMAGE * 3 };

struct fixture {
    struct config config;
    struct model *model;
    uint8_t pixels[PIXELS];
    int32_t labels[BATCH];
    float *master;
    float path_scale[2 * DEPTH * BATCH];
};

static inline struct model_options model_options(const struct fixture *fixture)
{
    return (struct model_options){.kernels = kernels_cpu(),
                                  .config = &fixture->config,
                                  .channels = 3,
                                  .batch = BATCH,
                                  .training = true,
                                  .threads = 1};
}

/* A configuration of `depth` blocks, at most DEPTH. */
static inline void configure_fixture(struct fixture *fixture, enum attention_kind kind, size_t depth,
                                     double layer_scale)
{
    memset(fixture, 0, sizeof *fixture);
    fixture->config.model.image_size = IMAGE;
    fixture->config.model.patch_size = PATCH;
    fixture->config.model.dim = 32;
    fixture->config.model.depth = (int64_t)depth;
    fixture->config.model.heads = 2;
    fixture->config.model.classes = CLASSES;
    fixture->config.model.mlp_ratio = 4;
    fixture->config.model.layer_scale = layer_scale;
    fixture->config.model.drop_path = 0.2; /* path_scale below stands for its draws */
    fixture->config.attention.kind = kind;
}

/* Opens the model that fixture->config describes. */
static inline void open_configured(struct fixture *fixture)
{
    struct error error;
    struct model_options options = model_options(fixture);
    if (!model_open(&fixture->model, &options, &error))
        fail_msg("%s", error.message);
    const float mean[] = {0.5f, 0.4f, 0.3f}, deviation[] = {0.2f, 0.25f, 0.3f};
    assert_true(model_set_normalisation(fixture->model, mean, deviation, &error));
    size_t total = fixture->model->parameters.total;
    fixture->master = malloc(total * sizeof(float));
    parameters_initialise(&fixture->model->parameters, fixture->master, 3);
    for (size_t i = 0; i < total; i++)
        fixture->master[i] *= 4; /* away from the nearly linear start */
    assert_true(model_set_parameters(fixture->model, fixture->master, &error));
    for (size_t i = 0; i < PIXELS; i++) {
        uint32_t bits[4];
        random_bits(bits, 5, 0, i);
        fixture->pixels[i] = (uint8_t)bits[0];
    }
    for (int i = 0; i < BATCH; i++)
        fixture->labels[i] = (i * 3 + 1) % CLASSES;
    for (size_t i = 0; i < 2 * DEPTH * BATCH; i++)
        fixture->path_scale[i] = i % 5 == 2 ? 0.0f : 1.25f;
}

static inline void open_fixture(struct fixture *fixture, enum attention_kind kind, double layer_scale, bool recompute)
{
    configure_fixture(fixture, kind, DEPTH, layer_scale);
    fixture->config.train.recompute = recompute;
    open_configured(fixture);
}

static inline void close_fixture(struct fixture *fixture)
{
    model_close(fixture->model);
    free(fixture->master);
}

static inline double loss_of(struct fixture *fixture, bool with_draws)
{
    struct error error;
    double sum = 0;
    const struct model_targets targets = {fixture->labels, true, {.smoothing = 0.1f}};
    fixture->model->draws.path_scale = fixture->path_scale;
    assert_true(model_forward(fixture->model, fixture->pixels, BATCH, with_draws, false, &error));
    assert_true(model_loss(fixture->model, &targets, BATCH, 1.0f, &error));
    for (size_t i = 0; i < BATCH; i++)
        sum += (double)fixture->model->loss[i];
    return sum;
}

static inline float *gradient_of(struct fixture *fixture, model_gradient_ready ready, void *owner)
{
    struct error error;
    size_t bytes = fixture->model->parameters.total * sizeof(float);
    float *gradient = malloc(bytes);
    assert_true(model_zero_gradient(fixture->model, &error));
    loss_of(fixture, true);
    assert_true(model_backward(fixture->model, BATCH, true, ready, owner, &error));
    memcpy(gradient, fixture->model->gradient, bytes);
    return gradient;
}

#endif
