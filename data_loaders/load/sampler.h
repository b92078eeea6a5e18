/* The order in which training visits images: position p of one endless sequence, the same for any number of ranks. */
#ifndef QUEST_DATA_LOADERS_LOAD_SAMPLER_H
#define QUEST_DATA_LOADERS_LOAD_SAMPLER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sampler {
    uint64_t images, seed;
    bool shuffle;
    uint64_t repeats; /* an image comes so often in a row (Hoffer et al., 2020); 0 = 1 */
    uint64_t window;  /* shuffle: images that are shuffled among each other; 0, or as many as there are: all */
};

/* Samples of an epoch: all images once; with repeats as many, by DeiT's rule cut to a multiple of 256, of about images
 * / repeats different ones (timm's RepeatAugSampler: selected_round). */
static inline uint64_t sampler_epoch_samples(uint64_t images, uint64_t repeats)
{
    return repeats > 1 && images >= 256 ? images / 256 * 256 : images;
}

enum { SAMPLER_BLOCKS = 256 };

/* The image at a position: permutation(seed, epoch)[p % samples / repeats] with epoch = p / samples and the samples of
 * an epoch, or the same place in the file without shuffle. The permutation is computed for one position at a time (a
 * Feistel network over Philox, walked until it falls inside: Black and Rogaway, "Ciphers with arbitrary finite
 * domains", CT-RSA 2002), so a sampler has no state: nothing to save, share between threads or rebuild when a run
 * resumes in the middle of an epoch. About 0.1 us.
 *
 * With a window the file order is cut into blocks of window / SAMPLER_BLOCKS images, from a place that each epoch
 * draws; the blocks come in random order, and every `window` images of that sequence in random order again. So any
 * window of positions reads about SAMPLER_BLOCKS runs of images that lie side by side, and still
 * every image comes exactly once an epoch. */
uint64_t sampler_image(const struct sampler *sampler, uint64_t position);

#endif
