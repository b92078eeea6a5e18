/* Philox4x32-10, the same on host and device. */
#include "src/base/random.h"

#include <Random123/philox.h>

uint64_t random_stream(const char *name)
{
    uint64_t hash = 14695981039346656037u;
    for (; *name; name++)
        hash = (hash ^ (unsigned char)*name) * 1099511628211u;
    return hash;
}

void random_bits(uint32_t bits[4], uint64_t seed, uint64_t stream, uint64_t index)
{
    philox4x32_ctr_t counter = {{(uint32_t)index, (uint32_t)(index >> 32), (uint32_t)stream, (uint32_t)(stream >> 32)}};
    philox4x32_key_t key = {{(uint32_t)seed, (uint32_t)(seed >> 32)}};
    philox4x32_ctr_t out = philox4x32(counter, key);
    for (int i = 0; i < 4; i++)
        bits[i] = out.v[i];
}

void random_uniform_pair(double pair[2], uint64_t seed, uint64_t stream, uint64_t index)
{
    uint32_t bits[4];
    random_bits(bits, seed, stream, index);
    for (int i = 0; i < 2; i++) {
        uint64_t whole = (uint64_t)bits[2 * i] << 32 | bits[2 * i + 1];
        pair[i] = ((double)(whole >> 11) + 1.0) * 0x1p-53;
    }
}
