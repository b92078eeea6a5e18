/* Random numbers by counter (Random123's Philox4x32-10): a number depends on seed, stream and index only, so there is
 * no state to save and the same numbers come out on any number of ranks and threads. */
#ifndef QUEST_RANDOM_H
#define QUEST_RANDOM_H

#include <stdint.h>

/* What a stream of numbers is for, as a number (FNV-1a of the name). */
uint64_t random_stream(const char *name);
/* 128 random bits. */
void random_bits(uint32_t bits[4], uint64_t seed, uint64_t stream, uint64_t index);
/* Two numbers in (0, 1], 53 bits each. */
void random_uniform_pair(double pair[2], uint64_t seed, uint64_t stream, uint64_t index);

#endif
