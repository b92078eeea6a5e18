/* What the tests of checkpoints share: a small model in memory, and whole files. */
#ifndef QUEST_TESTS_CHECKPOINT_TEST_H
#define QUEST_TESTS_CHECKPOINT_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/checkpoint/checkpoint.h"
#include "tests/unit/scratch.h"

/* ---- a small model in memory ---- */

enum { TENSORS = 4, NUMBERS = 600 };

struct memory {
    float parameter[NUMBERS], m[NUMBERS], v[NUMBERS];
    struct checkpoint_tensor tensors[TENSORS];
    struct checkpoint checkpoint;
};

static inline void lay_out(struct memory *memory)
{
    static const struct checkpoint_tensor shapes[TENSORS] = {
        {.name = "cls_token", .rank = 3, .shape = {1, 1, 8}},
        {.name = "patch_embed.proj.weight", .rank = 4, .shape = {8, 3, 4, 4}},
        {.name = "blocks.0.attn.scale", .rank = 1, .shape = {3}},
        {.name = "head.weight", .rank = 2, .shape = {10, 8}},
    };
    size_t offset = 0;
    for (size_t i = 0; i < TENSORS; i++) {
        memory->tensors[i] = shapes[i];
        memory->tensors[i].parameter = memory->parameter + offset;
        memory->tensors[i].m = memory->m + offset;
        memory->tensors[i].v = memory->v + offset;
        size_t count = 1;
        for (size_t d = 0; d < shapes[i].rank; d++)
            count *= shapes[i].shape[d];
        offset += count;
    }
    assert_true(offset <= NUMBERS);
    memory->checkpoint =
        (struct checkpoint){.tensors = memory->tensors, .tensor_count = TENSORS, .best_top1 = -1, .lr_scale = 1};
}

static char config_text[] = "model: {dim: 48}\n# \xc3\xbc\nattention: {kind: quest}\n";

static char class_names[] = "cat\nd\xc3\xb6g\n";

static inline void fill(struct memory *memory, uint64_t step)
{
    memset(memory, 0, sizeof *memory);
    lay_out(memory);
    for (size_t i = 0; i < NUMBERS; i++) {
        memory->parameter[i] = sinf((float)(i + step));
        memory->m[i] = 1e-30f * cosf((float)(i + step));
        memory->v[i] = (float)i * 1e-12f;
    }
    memory->parameter[5] = -0.0f;
    memory->parameter[6] = 1e-42f; /* subnormal */
    memory->checkpoint.step = step;
    memory->checkpoint.epoch = 3;
    memory->checkpoint.world_size = 2;
    memory->checkpoint.config = config_text;
    memory->checkpoint.class_names = class_names;
    memory->checkpoint.best_top1 = 0.625;
    memory->checkpoint.lr_scale = 0.25;
    memory->checkpoint.rewinds = 2;
    memory->checkpoint.gradient_norm_count = CHECKPOINT_NORMS_MAX;
    for (size_t i = 0; i < CHECKPOINT_NORMS_MAX; i++)
        memory->checkpoint.gradient_norms[i] = 1.0 / (double)(i + 3);
    memory->checkpoint.channels = 3;
    for (size_t i = 0; i < 3; i++) {
        memory->checkpoint.mean[i] = 0.1f * (float)(i + 1);
        memory->checkpoint.std[i] = 0.2f;
    }
}

static inline void write_step(struct memory *memory, uint64_t step)
{
    struct error error;
    fill(memory, step);
    if (!checkpoint_write(scratch, &memory->checkpoint, &error))
        fail_msg("%s", error.message);
}

/* Header and tensors as a resumed run reads them. */
static inline bool read_all(struct memory *memory, const char *path, struct error *error)
{
    memset(memory, 0, sizeof *memory);
    lay_out(memory);
    struct checkpoint header;
    if (!checkpoint_read_header(&header, path, error))
        return false;
    header.tensors = memory->tensors;
    header.tensor_count = TENSORS;
    memory->checkpoint = header;
    if (checkpoint_read_tensors(path, &header, true, true, error))
        return true;
    checkpoint_free(&memory->checkpoint);
    return false;
}

static inline bool same(const struct memory *a, const struct memory *b)
{
    const struct checkpoint *x = &a->checkpoint, *y = &b->checkpoint;
    size_t numbers = 8 + 8 * 3 * 4 * 4 + 3 + 10 * 8;
    return memcmp(a->parameter, b->parameter, numbers * sizeof(float)) == 0 &&
           memcmp(a->m, b->m, numbers * sizeof(float)) == 0 && memcmp(a->v, b->v, numbers * sizeof(float)) == 0 &&
           x->step == y->step && x->epoch == y->epoch && x->world_size == y->world_size && x->lr_scale == y->lr_scale &&
           x->rewinds == y->rewinds && x->gradient_norm_count == y->gradient_norm_count &&
           memcmp(x->gradient_norms, y->gradient_norms, sizeof x->gradient_norms) == 0 &&
           strcmp(x->config, y->config) == 0 && strcmp(x->class_names, y->class_names) == 0 &&
           x->best_top1 == y->best_top1 && x->channels == y->channels &&
           memcmp(x->mean, y->mean, sizeof x->mean) == 0 && memcmp(x->std, y->std, sizeof x->std) == 0;
}

/* ---- files ---- */

static inline unsigned char *load(const char *path, size_t *bytes)
{
    struct stat status;
    assert_int_equal(stat(path, &status), 0);
    *bytes = (size_t)status.st_size;
    unsigned char *contents = malloc(*bytes);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    assert_int_equal(fread(contents, 1, *bytes, file), *bytes);
    fclose(file);
    return contents;
}

static inline void store(const char *path, const unsigned char *contents, size_t bytes)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(contents, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
}

#endif
