/* A permutation of each epoch, computed for one position at a time by a Feistel network. */
#include "data_loaders/load/sampler.h"
#include "src/base/random.h"

enum { FEISTEL_ROUNDS = 6 };

/* A bijection of 0 .. 2^bits - 1. The halves swap roles every round, so they may differ by one bit in size. */
static uint64_t feistel(uint64_t value, unsigned bits, uint64_t seed, uint64_t epoch)
{
    unsigned low_bits = bits / 2, high_bits = bits - low_bits;
    uint64_t low = value & ((UINT64_C(1) << low_bits) - 1), high = value >> low_bits;
    for (uint32_t round = 0; round < FEISTEL_ROUNDS; round++) {
        /* Halves are at most 32 bits, so epoch, half and round fit one counter; epochs past 2^32 do not happen. */
        uint64_t item = (epoch << 32) | (round % 2 ? low : high);
        uint32_t word = random_draw(seed, RANDOM_PERMUTATION, item, round).word[0];
        if (round % 2)
            high ^= word & ((UINT64_C(1) << high_bits) - 1);
        else
            low ^= word & ((UINT64_C(1) << low_bits) - 1);
    }
    return high << low_bits | low;
}

uint64_t sampler_image(const struct sampler *sampler, uint64_t position)
{
    uint64_t repeats = sampler->repeats ? sampler->repeats : 1;
    uint64_t samples = sampler_epoch_samples(sampler->images, repeats);
    uint64_t epoch = position / samples, image = position % samples / repeats;
    if (!sampler->shuffle || sampler->images == 1)
        return image;
    unsigned bits = 64 - (unsigned)__builtin_clzll(sampler->images - 1);
    do { /* under two rounds on average: 2^bits < 2 * images */
        image = feistel(image, bits, sampler->seed, epoch);
    } while (image >= sampler->images);
    return image;
}
