/* Draws of mixup, cutmix and erasing. */
#include "data_loaders/load/mix.h"

#include <math.h>

#include "src/base/random.h"

/* In (0, 1). */
static double open_unit(uint32_t word)
{
    return ((double)word + 0.5) * 0x1p-32;
}

/* Gamma(shape, 1) by Marsaglia and Tsang (2000); below 1 from the next shape up. Each draw number is tried once. */
static double gamma_drawn(double shape, uint64_t seed, uint64_t item, uint32_t *draw)
{
    double raised = shape < 1 ? shape + 1 : shape, d = raised - 1.0 / 3, c = 1 / sqrt(9 * d);
    for (;;) {
        struct random_words words = random_draw(seed, RANDOM_MIX, item, (*draw)++);
        double x = sqrt(-2 * log(open_unit(words.word[0]))) * cos(2 * M_PI * open_unit(words.word[1]));
        double v = 1 + c * x;
        v = v * v * v;
        if (v > 0 && log(open_unit(words.word[2])) < 0.5 * x * x + d - d * v + d * log(v))
            return d * v * (shape < 1 ? pow(open_unit(words.word[3]), 1 / shape) : 1);
    }
}

double beta_drawn(double alpha, uint64_t seed, uint64_t item, uint32_t draw)
{
    double first = gamma_drawn(alpha, seed, item, &draw), second = gamma_drawn(alpha, seed, item, &draw);
    double sum = first + second;
    return sum > 0 ? first / sum : 0.5;
}

enum { DRAW_KIND, DRAW_LAMBDA };

struct mix_draw mix_drawn(const struct mix *mix, uint64_t seed, uint64_t group, size_t height, size_t width)
{
    struct random_words words = random_draw(seed, RANDOM_MIX, group, DRAW_KIND);
    struct mix_draw drawn = {.lambda = 1};
    bool mixup = mix->mixup_alpha > 0, cutmix = mix->cutmix_alpha > 0;
    if ((!mixup && !cutmix) || random_unit(words.word[0]) >= mix->probability)
        return drawn;
    drawn.cutmix = cutmix && (!mixup || random_unit(words.word[1]) < mix->switch_probability);
    drawn.lambda = beta_drawn(drawn.cutmix ? mix->cutmix_alpha : mix->mixup_alpha, seed, group, DRAW_LAMBDA);
    if (drawn.cutmix)
        drawn.lambda = box_cutmix(&drawn.box, drawn.lambda, random_below(words.word[2], (uint32_t)height),
                                  random_below(words.word[3], (uint32_t)width), height, width, mix->rule);
    return drawn;
}

bool erase_drawn(struct box *box, const struct erase *erase, uint64_t seed, uint64_t position, size_t height,
                 size_t width)
{
    const double least = erase->area_min, most = erase->area_max, log_aspect = log(1 / 0.3);
    if (random_unit(random_draw(seed, RANDOM_ERASE, position, 0).word[0]) >= erase->probability)
        return false;
    for (uint32_t attempt = 1; attempt <= BOX_ATTEMPTS; attempt++) {
        struct random_words words = random_draw(seed, RANDOM_ERASE, position, attempt);
        double share = least + (most - least) * random_unit(words.word[0]);
        if (!box_erase(box, share, log_aspect * (2 * random_unit(words.word[1]) - 1), height, width))
            continue;
        box->top = random_below(words.word[2], (uint32_t)(height - box->height) + 1);
        box->left = random_below(words.word[3], (uint32_t)(width - box->width) + 1);
        return true;
    }
    return false;
}
