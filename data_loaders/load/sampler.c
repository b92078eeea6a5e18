/* A permutation of each epoch, computed for one position at a time by Feistel networks. */
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

/* A bijection of 0 .. count - 1. */
static uint64_t permute(uint64_t value, uint64_t count, uint64_t seed, uint64_t epoch)
{
    if (count == 1)
        return value;
    unsigned bits = 64 - (unsigned)__builtin_clzll(count - 1);
    do { /* under two rounds on average: 2^bits < 2 * count */
        value = feistel(value, bits, seed, epoch);
    } while (value >= count);
    return value;
}

/* A seed of its own for a window of an epoch; number 2^32 - 1 is the epoch's. */
static uint64_t seed_of(uint64_t seed, uint64_t epoch, uint64_t window, uint64_t *offset)
{
    struct random_words words = random_draw(seed, RANDOM_WINDOW, epoch << 32 | (window & UINT32_MAX), 0);
    *offset = (uint64_t)words.word[2] << 32 | words.word[3];
    return (uint64_t)words.word[0] << 32 | words.word[1];
}

/* Inside its window, then to the block that has come to this place, then to the file. */
static uint64_t within_window(const struct sampler *sampler, uint64_t place, uint64_t epoch)
{
    const uint64_t images = sampler->images, window = place / sampler->window, first = window * sampler->window;
    const uint64_t length = images - first < sampler->window ? images - first : sampler->window;
    const uint64_t block = sampler->window / SAMPLER_BLOCKS ? sampler->window / SAMPLER_BLOCKS : 1;
    uint64_t offset;
    place = first + permute(place - first, length, seed_of(sampler->seed, epoch, window, &offset), 0);
    uint64_t blocks = images / block, epoch_seed = seed_of(sampler->seed, epoch, UINT32_MAX, &offset);
    if (place < blocks * block) /* what is left over by whole blocks comes last; which images that are, `offset` says */
        place = permute(place / block, blocks, epoch_seed, 0) * block + place % block;
    return (place + offset % images) % images;
}

uint64_t sampler_image(const struct sampler *sampler, uint64_t position)
{
    uint64_t repeats = sampler->repeats ? sampler->repeats : 1;
    uint64_t samples = sampler_epoch_samples(sampler->images, repeats);
    uint64_t epoch = position / samples, image = position % samples / repeats;
    if (!sampler->shuffle)
        return image;
    if (sampler->window > 0 && sampler->window < sampler->images)
        return within_window(sampler, image, epoch);
    return permute(image, sampler->images, sampler->seed, epoch);
}
