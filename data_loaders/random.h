/* Counter-based random numbers (Philox 4x32-10; Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011):
 * a draw is a function of what it is for and of the sample, never of the thread, the rank or the time. */
#ifndef QUEST_DATA_RANDOM_H
#define QUEST_DATA_RANDOM_H

#include <Random123/philox.h>
#include <stdint.h>

/* What a draw is for: different purposes never share numbers. */
enum random_purpose { RANDOM_PERMUTATION = 0x5045524d, RANDOM_AUGMENT = 0x41554721, RANDOM_SYNTHETIC = 0x53594e54 };

struct random_words {
    uint32_t word[4];
};

/* Draw number `draw` of item `item` (a position, an image) under `seed`. */
static inline struct random_words random_draw(uint64_t seed, enum random_purpose purpose, uint64_t item, uint32_t draw)
{
    philox4x32_ctr_t counter = {{(uint32_t)item, (uint32_t)(item >> 32), draw, (uint32_t)purpose}};
    philox4x32_key_t key = {{(uint32_t)seed, (uint32_t)(seed >> 32)}};
    philox4x32_ctr_t drawn = philox4x32(counter, key);
    return (struct random_words){{drawn.v[0], drawn.v[1], drawn.v[2], drawn.v[3]}};
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
