/* Numbers that look random and are the same in every run. */
#ifndef QUEST_TESTS_NOISE_H
#define QUEST_TESTS_NOISE_H

#include <stdlib.h>

#include "data_loaders/load/patches.h"
#include "src/base/random.h"

/* The item-th number, in 0 .. below - 1. */
static inline uint32_t dice(uint64_t item, uint32_t below)
{
    return random_below(random_draw(99, RANDOM_SYNTHETIC, item, 0).word[0], below);
}

/* Caller frees; readable past its end as pixels must be. */
static inline uint8_t *noise(size_t bytes, uint64_t seed)
{
    uint8_t *values = malloc(bytes + PIXELS_SLACK_BYTES);
    for (size_t i = 0; i < bytes + PIXELS_SLACK_BYTES; i++)
        values[i] = (uint8_t)random_draw(seed, RANDOM_SYNTHETIC, i, 1).word[0];
    return values;
}

#endif
