/* Draws which branches of which images are dropped. */
#include "src/input/stochastic_depth.h"

#include "src/base/random.h"

void stochastic_depth_draw(float *path_scale, double drop_path, size_t depth, size_t stride, uint64_t seed,
                           const uint64_t *positions, size_t count)
{
    uint64_t stream = random_stream("stochastic depth");
    for (size_t block = 0; block < depth; block++) {
        double drop = depth > 1 ? drop_path * (double)block / (double)(depth - 1) : drop_path;
        for (size_t image = 0; image < count; image++) {
            double draw[2];
            random_uniform_pair(draw, seed, stream, positions[image] * depth + block);
            for (size_t branch = 0; branch < 2; branch++)
                path_scale[(2 * block + branch) * stride + image] =
                    draw[branch] > drop ? (float)(1.0 / (1.0 - drop)) : 0.0f;
        }
    }
}
