/* RandAugment: the policy's text, and its draws. */
#include "data_loaders/load/rand_augment.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/random.h"

#define MOST_MAGNITUDE 10.0

/* One part of the text, such as "mstd0.5": a name and a number. */
static bool parse_part(struct rand_augment *policy, const char *part, struct error *error)
{
    size_t letters = strcspn(part, "0123456789.+-");
    char *end;
    double number = strtod(part + letters, &end), ops = policy->ops, increasing = 0;
    const struct {
        const char *name;
        double *to, least, most;
    } known[] = {
        {"m", &policy->magnitude, 0, MOST_MAGNITUDE},
        {"n", &ops, 1, RAND_AUGMENT_MOST_OPS},
        {"p", &policy->probability, 0, 1},
        {"mstd", &policy->deviation, 0, 1e9},
        {"mmax", &policy->most, 0, MOST_MAGNITUDE},
        {"inc", &increasing, 0, 1},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strlen(known[i].name) != letters || strncmp(part, known[i].name, letters) != 0)
            continue;
        if (end == part + letters || *end != 0 || !(number >= known[i].least && number <= known[i].most))
            return error_input(error, "'%s': %s takes a number from %g to %g", part, known[i].name, known[i].least,
                               known[i].most);
        *known[i].to = number;
        policy->ops = (int)ops;
        policy->increasing |= increasing > 0;
        return true;
    }
    return error_input(error, "'%s' is not known; the parts are m, n, p, mstd, mmax and inc, each with a number", part);
}

bool rand_augment_parse(struct rand_augment *policy, const char *text, struct error *error)
{
    char copy[256], *rest = NULL;
    *policy = (struct rand_augment){.ops = 0};
    if (!*text || strcmp(text, "none") == 0)
        return true;
    if (strncmp(text, "rand", 4) != 0 || (text[4] && text[4] != '-'))
        return error_input(error, "'%s' is no policy: one looks like rand-m9-mstd0.5-inc1", text);
    if (snprintf(copy, sizeof copy, "%s", text + 4) >= (int)sizeof copy)
        return error_input(error, "a policy has at most %zu characters", sizeof copy - 1);
    *policy = (struct rand_augment){.ops = 2, .probability = 0.5, .magnitude = MOST_MAGNITUDE, .most = MOST_MAGNITUDE};
    for (char *part = strtok_r(copy, "-", &rest); part; part = strtok_r(NULL, "-", &rest))
        if (!parse_part(policy, part, error))
            return false;
    return true;
}

/* A standard normal number (Box and Muller). */
static double normal(uint32_t first, uint32_t second)
{
    return sqrt(-2 * log((first + 0.5) * 0x1p-32)) * cos(2 * M_PI * random_unit(second));
}

static double clamp(double x, double least, double most)
{
    return x < least ? least : x > most ? most : x;
}

double rand_augment_argument(const struct rand_augment *policy, enum picture_op op, double magnitude, bool negative)
{
    double level = magnitude / MOST_MAGNITUDE, sign = negative ? -1 : 1;
    switch (op) {
    case PICTURE_ROTATE:
        return sign * level * 30;
    case PICTURE_POSTERIZE:
        return policy->increasing ? 4 - (int)(level * 4) : (int)(level * 4);
    case PICTURE_SOLARIZE: {
        int bound = (int)(level * 256);
        bound = bound > 256 ? 256 : bound;
        return policy->increasing ? 256 - bound : bound;
    }
    case PICTURE_SOLARIZE_ADD: {
        int add = (int)(level * 110);
        return add > 128 ? 128 : add;
    }
    case PICTURE_COLOR:
    case PICTURE_CONTRAST:
    case PICTURE_BRIGHTNESS:
    case PICTURE_SHARPNESS: {
        double factor = policy->increasing ? 1 + sign * level * 0.9 : level * 1.8 + 0.1;
        return policy->increasing && factor < 0.1 ? 0.1 : factor;
    }
    case PICTURE_SHEAR_X:
    case PICTURE_SHEAR_Y:
        return sign * level * 0.3;
    case PICTURE_TRANSLATE_X:
    case PICTURE_TRANSLATE_Y:
        return sign * level * 0.45;
    default:
        return 0;
    }
}

struct rand_augment_step rand_augment_draw(const struct rand_augment *policy, uint64_t seed, uint64_t position,
                                           int step)
{
    struct random_words choice = random_draw(seed, RANDOM_RAND_AUGMENT, position, 2 * (uint32_t)step);
    struct random_words noise = random_draw(seed, RANDOM_RAND_AUGMENT, position, 2 * (uint32_t)step + 1);
    struct rand_augment_step drawn = {.op = (enum picture_op)random_below(choice.word[0], PICTURE_OPS),
                                      .done = random_unit(choice.word[1]) < policy->probability,
                                      .magnitude = policy->magnitude};
    if (policy->deviation >= 100)
        drawn.magnitude = policy->magnitude * random_unit(noise.word[0]);
    else if (policy->deviation > 0)
        drawn.magnitude += policy->deviation * normal(noise.word[0], noise.word[1]);
    drawn.magnitude = clamp(drawn.magnitude, 0, policy->most);
    drawn.argument = rand_augment_argument(policy, drawn.op, drawn.magnitude, choice.word[2] & 1);
    return drawn;
}

void rand_augment_apply(const struct rand_augment *policy, struct picture *picture, const uint8_t fill[3],
                        uint64_t seed, uint64_t position)
{
    for (int step = 0; step < policy->ops; step++) {
        struct rand_augment_step drawn = rand_augment_draw(policy, seed, position, step);
        if (drawn.done)
            picture_apply(picture, drawn.op, drawn.argument, AFFINE_BICUBIC, fill);
    }
}
