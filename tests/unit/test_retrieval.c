/* The retrieval experiment: its samples are those of the specification, its model's loss and gradient those of a plain
 * float64 loop and its central differences, and its grids are read strictly. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/base/random.h"
#include "src/retrieval/config.h"
#include "src/retrieval/data.h"
#include "src/retrieval/model.h"

enum { DIM = RETRIEVAL_DIM, TOKENS = RETRIEVAL_TOKENS, SAMPLES = 24 };

static const struct retrieval_task task = {
    .biased_share = 0.5, .bias_length = 4, .biased_variance = 0.1, .answer_variance = 16};
static const struct retrieval_start starts[] = {{.biases = false, .tied = true}, {.biases = true, .tied = false}};

/* ---- numbers and samples ---- */

/* Pairs have the radius that libm gives, and their angles fill the circle evenly. */
static void normals_are_box_and_mullers(void **state)
{
    (void)state;
    enum { COUNT = 64000, HALF = 16, OCTANTS = 8 };
    uint32_t *words = malloc(COUNT * sizeof *words);
    float *numbers = malloc(COUNT * sizeof *numbers);
    size_t octants[OCTANTS] = {0};
    for (size_t i = 0; i < COUNT / 4; i++)
        random_bits(words + 4 * i, 3, 1, i);
    words[0] = 0;                /* the largest radius */
    words[1] = UINT32_MAX;       /* radius 0 */
    words[2] = 0x80000000u + 17; /* next to radius sqrt(2 ln 2) */
    retrieval_normals(numbers, words, COUNT);
    for (size_t i = 0; i < COUNT; i += 2 * HALF)
        for (size_t j = i; j < i + HALF; j++) {
            double a = (double)numbers[j], b = (double)numbers[j + HALF], radius = hypot(a, b);
            double expected = sqrt(-2 * log(((words[j] >> 8) + 1) * 0x1p-24));
            if (!(fabs(radius - expected) <= 3e-7 * (1 + expected)))
                fail_msg("word %08x: radius %.9g, %.9g expected", words[j], radius, expected);
            octants[(size_t)((atan2(b, a) / M_PI + 1) * 3.999999)]++;
        }
    for (size_t i = 0; i < OCTANTS; i++) /* 4000 expected, standard deviation 59 */
        assert_in_range(octants[i], 3700, 4300);
    free(words);
    free(numbers);
}

static struct retrieval_batch drawn(size_t samples, uint64_t seed, uint64_t first, enum retrieval_bias bias)
{
    struct error error;
    struct retrieval_batch batch;
    assert_true(retrieval_batch_open(&batch, samples, &error));
    retrieval_draw(&batch, &task, seed, "test", first, bias);
    return batch;
}

static const float *answer_token(const struct retrieval_batch *batch, size_t sample)
{
    return batch->x + (sample * TOKENS + batch->answer[sample]) * DIM;
}

static void samples_are_as_specified(void **state)
{
    (void)state;
    enum { MANY = 8000 };
    struct retrieval_batch batch = drawn(MANY, 7, 0, RETRIEVAL_MIXED);
    float direction[DIM];
    size_t biased = 0, places[TOKENS] = {0}, labels[TOKENS] = {0};
    double bias_square = 0, around = 0, answers = 0, all = 0;
    retrieval_bias_direction(direction, &task, 7);
    for (size_t i = 0; i < DIM; i++)
        bias_square += (double)(direction[i] * direction[i]);
    assert_true(fabs(sqrt(bias_square) - 4) < 1e-5);
    for (size_t sample = 0; sample < MANY; sample++) {
        const uint8_t *classes = batch.classes + sample * TOKENS;
        unsigned seen = 0;
        for (size_t token = 0; token < TOKENS; token++)
            seen |= 1u << classes[token];
        assert_int_equal(seen, 0xffff);
        assert_int_equal(batch.labels[sample], classes[batch.answer[sample]]);
        biased += batch.biased[sample];
        places[batch.answer[sample]]++;
        labels[batch.labels[sample]]++;
        for (size_t i = 0; i < DIM; i++) {
            double x = (double)answer_token(&batch, sample)[i];
            *(batch.biased[sample] ? &around : &answers) +=
                pow(x - (batch.biased[sample] ? (double)direction[i] : 0), 2);
        }
        for (size_t i = 0; i < TOKENS * DIM; i++)
            all += pow((double)batch.x[sample * TOKENS * DIM + i], 2);
    }
    assert_in_range(biased, MANY / 2 - 180, MANY / 2 + 180); /* four standard deviations */
    for (size_t i = 0; i < TOKENS; i++) {
        assert_in_range(places[i], 410, 590);
        assert_in_range(labels[i], 410, 590);
    }
    double unbiased = (double)(MANY - biased), per_answer = DIM * (double)biased;
    assert_true(fabs(around / per_answer / 0.1 - 1) < 0.02);
    assert_true(fabs(answers / (unbiased * DIM) / 16 - 1) < 0.02);
    double others = all - answers - (around + bias_square * (double)biased);
    assert_true(fabs(others / ((double)MANY * (TOKENS - 1) * DIM) - 1) < 0.01);
    retrieval_batch_close(&batch);
}

/* A sample is the same in whatever batch it is drawn, other seeds give others, and tests are of one sort. */
static void samples_depend_on_seed_and_number_only(void **state)
{
    (void)state;
    struct retrieval_batch whole = drawn(8, 1, 100, RETRIEVAL_MIXED), part = drawn(3, 1, 104, RETRIEVAL_MIXED);
    struct retrieval_batch other = drawn(8, 2, 100, RETRIEVAL_MIXED), biased = drawn(64, 1, 0, RETRIEVAL_BIASED);
    struct retrieval_batch unbiased = drawn(64, 1, 0, RETRIEVAL_UNBIASED);
    assert_memory_equal(whole.x + 4 * TOKENS * DIM, part.x, 3 * TOKENS * DIM * sizeof(float));
    assert_memory_equal(whole.classes + 4 * TOKENS, part.classes, 3 * TOKENS);
    assert_memory_equal(whole.answer + 4, part.answer, 3);
    assert_memory_not_equal(whole.x, other.x, TOKENS * DIM * sizeof(float));
    for (size_t i = 0; i < 64; i++) {
        assert_true(biased.biased[i]);
        assert_false(unbiased.biased[i]);
    }
    struct retrieval_batch *batches[] = {&whole, &part, &other, &biased, &unbiased};
    for (size_t i = 0; i < sizeof batches / sizeof *batches; i++)
        retrieval_batch_close(batches[i]);
}

/* ---- the model ---- */

struct fixture {
    struct retrieval_model model;
    struct retrieval_batch batch;
};

static void open_fixture(struct fixture *fixture, enum retrieval_kind kind, struct retrieval_start start)
{
    struct error error;
    fixture->batch = drawn(SAMPLES, 5, 0, RETRIEVAL_MIXED);
    if (!retrieval_model_open(&fixture->model, kind, start, SAMPLES, 5, &error))
        fail_msg("%s", error.message);
}

static void close_fixture(struct fixture *fixture)
{
    retrieval_model_close(&fixture->model);
    retrieval_batch_close(&fixture->batch);
}

/* The specification in float64, read off line by line; numbers of `weights` lie as in struct retrieval_weights. */
struct reference {
    double query[DIM][DIM], key[DIM][DIM], value[DIM][DIM], output[DIM][DIM];
    double query_bias[DIM], key_bias[DIM], output_bias[DIM], unused[DIM];
};

static void projected(double out[TOKENS][DIM], const float *x, const double matrix[DIM][DIM], const double *bias,
                      bool unit)
{
    for (size_t token = 0; token < TOKENS; token++) {
        double square = 0;
        for (size_t j = 0; j < DIM; j++) {
            out[token][j] = bias[j];
            for (size_t i = 0; i < DIM; i++)
                out[token][j] += (double)x[token * DIM + i] * matrix[i][j];
            square += out[token][j] * out[token][j];
        }
        for (size_t j = 0; unit && j < DIM; j++)
            out[token][j] /= sqrt(square);
    }
}

/* exp(x - log sum exp x) of `count` numbers, in place; returns log sum exp. */
static double softmax(double *x, size_t count)
{
    double largest = -INFINITY, sum = 0;
    for (size_t i = 0; i < count; i++)
        largest = fmax(largest, x[i]);
    for (size_t i = 0; i < count; i++)
        sum += exp(x[i] - largest);
    double logarithm = largest + log(sum);
    for (size_t i = 0; i < count; i++)
        x[i] = exp(x[i] - logarithm);
    return logarithm;
}

/* The loss of one sample. */
static double sample_loss(const struct reference *weights, enum retrieval_kind kind, const float *x,
                          const uint8_t *classes, int32_t label)
{
    double query[TOKENS][DIM], key[TOKENS][DIM], pooled[DIM] = {0}, hidden[DIM] = {0}, logits[DIM];
    bool unit_query = kind == RETRIEVAL_QNORM || kind == RETRIEVAL_QKNORM_UNIT;
    bool unit_key = kind == RETRIEVAL_QUEST || kind == RETRIEVAL_QKNORM_UNIT;
    projected(query, x, weights->query, weights->query_bias, unit_query);
    projected(key, x, weights->key, weights->key_bias, unit_key);
    for (size_t i = 0; i < TOKENS; i++) {
        double row[TOKENS] = {0};
        for (size_t j = 0; j < TOKENS; j++)
            for (size_t d = 0; d < DIM; d++)
                row[j] += query[i][d] * key[j][d] * (kind == RETRIEVAL_STANDARD ? 0.25 : 1);
        softmax(row, TOKENS);
        for (size_t j = 0; j < TOKENS; j++)
            pooled[classes[j]] += row[j] / TOKENS;
    }
    for (size_t i = 0; i < DIM; i++)
        for (size_t j = 0; j < DIM; j++)
            hidden[j] += pooled[i] * weights->value[i][j];
    for (size_t j = 0; j < DIM; j++) {
        logits[j] = weights->output_bias[j];
        for (size_t i = 0; i < DIM; i++)
            logits[j] += hidden[i] * weights->output[i][j];
    }
    double right = logits[label];
    return softmax(logits, DIM) - right;
}

static double reference_loss(const struct reference *weights, enum retrieval_kind kind,
                             const struct retrieval_batch *batch)
{
    double sum = 0;
    for (size_t sample = 0; sample < batch->samples; sample++)
        sum += sample_loss(weights, kind, batch->x + sample * TOKENS * DIM, batch->classes + sample * TOKENS,
                           batch->labels[sample]);
    return sum / (double)batch->samples;
}

/* One number's central difference against its gradient, relative to the length of the gradient of its tensor. */
static void check_tensor(struct fixture *fixture, struct reference *weights, enum retrieval_kind kind, size_t first,
                         size_t count, const char *name)
{
    double *numbers = (double *)weights, length = 0;
    const float *gradient = (const float *)fixture->model.gradient + first;
    for (size_t i = 0; i < count; i++)
        length += (double)(gradient[i] * gradient[i]);
    for (size_t i = 0; i<count; i += count> DIM ? 5 : 1) {
        const double step = 1e-5, kept = numbers[first + i];
        numbers[first + i] = kept + step;
        double above = reference_loss(weights, kind, &fixture->batch);
        numbers[first + i] = kept - step;
        double difference = (above - reference_loss(weights, kind, &fixture->batch)) / (2 * step);
        numbers[first + i] = kept;
        if (!(fabs(difference - (double)gradient[i]) <= 2e-5 * sqrt(length) + 1e-8))
            fail_msg("%d, %s[%zu]: central difference %.9g, gradient %.9g (length %.3g)", (int)kind, name, i,
                     difference, (double)gradient[i], sqrt(length));
    }
}

static void check_model(enum retrieval_kind kind, struct retrieval_start start)
{
    struct fixture fixture;
    struct error error;
    struct reference weights;
    open_fixture(&fixture, kind, start);
    float *numbers = (float *)fixture.model.weights;
    double loss = 0;
    for (size_t i = 0; i < RETRIEVAL_WEIGHTS; i++) /* away from the nearly linear start */
        ((double *)&weights)[i] = (double)(numbers[i] *= 3);
    assert_true(retrieval_forward(&fixture.model, &fixture.batch, NULL, &error));
    assert_true(retrieval_backward(&fixture.model, &fixture.batch, &error));
    for (size_t i = 0; i < SAMPLES; i++)
        loss += (double)fixture.model.loss[i] / SAMPLES;
    double expected = reference_loss(&weights, kind, &fixture.batch);
    if (!(fabs(loss - expected) <= 2e-6 * expected))
        fail_msg("kind %d: loss %.9g, float64 gives %.9g", (int)kind, loss, expected);
    const struct {
        size_t offset, count;
        const char *name;
    } tensors[] = {{offsetof(struct retrieval_weights, query), DIM * DIM, "query"},
                   {offsetof(struct retrieval_weights, key), DIM * DIM, "key"},
                   {offsetof(struct retrieval_weights, value), DIM * DIM, "value"},
                   {offsetof(struct retrieval_weights, output), DIM * DIM, "output"},
                   {offsetof(struct retrieval_weights, output_bias), DIM, "output_bias"},
                   {offsetof(struct retrieval_weights, query_bias), DIM, "query_bias"},
                   {offsetof(struct retrieval_weights, key_bias), DIM, "key_bias"}};
    double square = 0;
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors - (start.biases ? 0 : 2); i++)
        check_tensor(&fixture, &weights, kind, tensors[i].offset / sizeof(float), tensors[i].count, tensors[i].name);
    for (size_t i = 0; i < RETRIEVAL_WEIGHTS; i++)
        square += pow((double)((const float *)fixture.model.gradient)[i], 2);
    assert_true(fabs(square - *fixture.model.gradient_square) <= 1e-5 * square);
    close_fixture(&fixture);
}

static void loss_and_gradient_match_float64(void **state)
{
    (void)state;
    for (enum retrieval_kind kind = 0; kind < RETRIEVAL_KINDS; kind++)
        for (size_t i = 0; i < sizeof starts / sizeof *starts; i++)
            check_model(kind, starts[i]);
}

static void start_is_as_specified(void **state)
{
    (void)state;
    for (size_t start = 0; start < sizeof starts / sizeof *starts; start++) {
        struct fixture fixture;
        open_fixture(&fixture, RETRIEVAL_QUEST, starts[start]);
        const struct retrieval_weights *weights = fixture.model.weights;
        double sum = 0, largest = 0, biases = 0;
        for (size_t i = 0; i < DIM; i++) {
            assert_true(weights->output_bias[i] == 0);
            biases += fabs((double)weights->query_bias[i]) + fabs((double)weights->key_bias[i]);
            for (size_t j = 0; j < DIM; j++) {
                sum += fabs((double)weights->query[i][j]);
                largest = fmax(largest, fabs((double)weights->query[i][j]));
                assert_int_equal(weights->key[i][j] == weights->query[i][j], starts[start].tied);
                assert_int_equal(weights->output[i][j] == weights->value[j][i], starts[start].tied);
            }
        }
        assert_true(largest <= 0.25 && largest > 0.24 && fabs(sum / (DIM * DIM) - 0.125) < 0.02);
        assert_int_equal(biases > 0, starts[start].biases);
        close_fixture(&fixture);
    }
}

/* Decay acts on every parameter, biases too; biases that are not there stay zero. */
static void update_decays_everything(void **state)
{
    (void)state;
    for (size_t start = 0; start < sizeof starts / sizeof *starts; start++) {
        struct fixture fixture;
        struct error error;
        const struct adamw adamw = {
            .lr = 0.1f, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .weight_decay = 0.5f, .step = 1};
        open_fixture(&fixture, RETRIEVAL_STANDARD, starts[start]);
        struct retrieval_weights before = *fixture.model.weights;
        assert_true(retrieval_update(&fixture.model, &adamw, &error)); /* the gradient is zero still */
        for (size_t i = 0; i < RETRIEVAL_WEIGHTS; i++)
            assert_true(fabsf(((float *)fixture.model.weights)[i] - 0.95f * ((float *)&before)[i]) < 1e-7f);
        assert_true(retrieval_forward(&fixture.model, &fixture.batch, NULL, &error));
        assert_true(retrieval_backward(&fixture.model, &fixture.batch, &error));
        assert_true(retrieval_update(&fixture.model, &adamw, &error));
        for (size_t i = 0; i < DIM; i++) {
            assert_int_equal(fixture.model.weights->query_bias[i] != 0, starts[start].biases);
            assert_true(fixture.model.weights->unused[i] == 0);
        }
        close_fixture(&fixture);
    }
}

/* ---- grids ---- */

static bool read_text(struct retrieval_grid *grid, const char *text, const struct retrieval_choice *choice,
                      struct error *error)
{
    char path[] = "/tmp/quest_retrieval_XXXXXX";
    int file = mkstemp(path);
    assert_true(file >= 0 && write(file, text, strlen(text)) == (ssize_t)strlen(text));
    close(file);
    *grid = (struct retrieval_grid){0};
    bool ok = retrieval_grid_read(grid, path, choice, error);
    unlink(path);
    return ok;
}

static void refused(const char *text, const struct retrieval_choice *choice, const char *first, const char *second)
{
    struct retrieval_grid grid;
    struct error error;
    if (read_text(&grid, text, choice, &error))
        fail_msg("accepted: %s", text);
    retrieval_grid_close(&grid);
    assert_int_equal(error.status, ERROR_INPUT);
    if (!strstr(error.message, first) || !strstr(error.message, second))
        fail_msg("'%s' ... '%s' expected, not: %s", first, second, error.message);
}

static void grids_are_every_combination(void **state)
{
    (void)state;
    struct retrieval_grid grid;
    struct error error;
    const struct retrieval_choice as_given = {0}, chosen = {.kinds = "qnorm", .seeds = 5};
    const char *text = "specification: Z\ngrid: {kinds: \"quest, standard\", lr: \"1e-3,0.1\", seeds: 3}\n";
    assert_true(read_text(&grid, text, &as_given, &error));
    assert_int_equal(grid.count, 12);
    assert_int_equal(grid.runs[0].attention.kind, RETRIEVAL_QUEST);
    assert_int_equal(grid.runs[11].attention.kind, RETRIEVAL_STANDARD);
    assert_true(grid.runs[2].optim.lr == 1e-3 && grid.runs[3].optim.lr == 0.1);
    assert_int_equal(grid.runs[2].train.seed, 2);
    assert_int_equal(grid.runs[2].grid.seeds, 1);
    retrieval_grid_close(&grid);
    assert_true(read_text(&grid, text, &chosen, &error));
    assert_int_equal(grid.count, 10);
    assert_int_equal(grid.runs[9].attention.kind, RETRIEVAL_QNORM);
    retrieval_grid_close(&grid);
}

static void mistakes_name_line_and_key(void **state)
{
    (void)state;
    const struct retrieval_choice as_given = {0}, wrong = {.kinds = "quest,wide"};
    const char *const override[] = {"optim.lr=fast"};
    const struct retrieval_choice wrong_override = {.overrides = override, .override_count = 1};
    refused("optim: {lr: 1e-3}\ntrain:\n  step: 10\n", &as_given, ":3: train.step: is not a known key", "train.steps");
    refused("optim: {lr: 0}\n", &as_given, ":1: optim.lr: '0' is out of range", "positive");
    refused("grid:\n  lr: \"1e-3, fast\"\n", &as_given, ":2: grid.lr: 'fast' is not a number", "positive real number");
    refused("grid: {lr: \"1e-3,,1\"}\n", &as_given, ":1: grid.lr: ", "no value");
    refused("grid: {kinds: wide}\n", &as_given, ":1: grid.kinds: 'wide' is not known", "qknorm_unit");
    refused("specification: ../x\n", &as_given, ":1: specification: ", "names directories");
    refused("specification: Z\n", &wrong, "--kinds: grid.kinds: 'wide' is not known", "qknorm_unit");
    refused("specification: Z\n", &wrong_override, "--set optim.lr=fast: 'fast' is not a number", "positive");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(normals_are_box_and_mullers),
        cmocka_unit_test(samples_are_as_specified),
        cmocka_unit_test(samples_depend_on_seed_and_number_only),
        cmocka_unit_test(loss_and_gradient_match_float64),
        cmocka_unit_test(start_is_as_specified),
        cmocka_unit_test(update_decays_everything),
        cmocka_unit_test(grids_are_every_combination),
        cmocka_unit_test(mistakes_name_line_and_key),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
