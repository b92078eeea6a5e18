/* Draws which branches of which images are dropped. */
#include "src/input/stochastic_depth.h"

#include "src/base/random.h"

double stochastic_depth_rate(const struct stochastic_depth *options, size_t block)
{
    bool rises = options->rule == DROP_PATH_LINEAR && options->depth > 1;
    return rises ? options->rate * (double)block / (double)(options->depth - 1) : options->rate;
}

void stochastic_depth_draw(float *path_scale, const struct stochastic_depth *options, size_t stride, uint64_t seed,
                           const uint64_t *positions, size_t count)
{
    uint64_t stream = random_stream("stochastic depth");
    for (size_t block = 0; block < options->depth; block++) {
        double drop = stochastic_depth_rate(options, block);
        for (size_t image = 0; image < count; image++) {
            double draw[2];
            random_uniform_pair(draw, seed, stream, positions[image] * options->depth + block);
            for (size_t branch = 0; branch < 2; branch++)
                path_scale[(2 * block + branch) * stride + image] =
                    draw[branch] > drop ? (float)(1.0 / (1.0 - drop)) : 0.0f;
        }
    }
}
