/* Random numbers by counter (Random123's Philox4x32-10): a number depends on seed, stream and index only, so there is
 * no state to save and the same numbers come out on any number of ranks and threads. */
#ifndef QUEST_BASE_RANDOM_H
#define QUEST_BASE_RANDOM_H

#include <stdint.h>

/* What a stream of numbers is for, as a number (FNV-1a of the name). */
uint64_t random_stream(const char *name);
/* 128 random bits. */
void random_bits(uint32_t bits[4], uint64_t seed, uint64_t stream, uint64_t index);
/* Two numbers in (0, 1], 53 bits each. */
void random_uniform_pair(double pair[2], uint64_t seed, uint64_t stream, uint64_t index);

/* ---- draws of the data path: a function of what they are for and of the sample, never of thread, rank or time ---- */

/* What a draw is for: different purposes never share numbers. */
enum random_purpose {
    RANDOM_PERMUTATION = 0x5045524d,
    RANDOM_AUGMENT = 0x41554721,
    RANDOM_SYNTHETIC = 0x53594e54,
    RANDOM_PLANT = 0x504c414e,
    RANDOM_RAND_AUGMENT = 0x52414e44,
    RANDOM_THREE_AUGMENT = 0x33415547,
    RANDOM_COLOUR_JITTER = 0x4a495454,
    RANDOM_ERASE = 0x45524153,
    RANDOM_MIX = 0x4d495821,
    RANDOM_NOISE = 0x4e4f4953,
    RANDOM_WINDOW = 0x57494e44
};

struct random_words {
    uint32_t word[4];
};

/* Draw number `draw` of item `item` (a position, an image) under `seed`. */
static inline struct random_words random_draw(uint64_t seed, enum random_purpose purpose, uint64_t item, uint32_t draw)
{
    struct random_words words;
    random_bits(words.word, seed, (uint64_t)purpose << 32 | draw, item);
    return words;
}

/* In [0, 1). */
static inline double random_unit(uint32_t word)
{
    return word * 0x1p-32;
}

/* In 0 .. count - 1, by the multiply-shift method; the bias is under count / 2^32. */
static inline uint32_t random_below(uint32_t word, uint32_t count)
{
    return (uint32_t)(((uint64_t)word * count) >> 32);
}

#endif
