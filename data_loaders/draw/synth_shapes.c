/* Draws synthetic images: a scene is rolled from seed and index, then every pixel is coloured by what lies there. */
#include "data_loaders/draw/synth.h"

#include <math.h>
#include <string.h>

#include "data_loaders/draw/spurious_pattern.h"
#include "src/base/random.h"

enum { CLUTTER_BEHIND = 7, CLUTTER_BEFORE = 2, CLUTTER = CLUTTER_BEHIND + CLUTTER_BEFORE, SAMPLES_A_SIDE = 2 };

const char *const synth_class_names[SYNTH_CLASSES] = {"disc", "square", "triangle", "plus",     "star",
                                                      "ring", "half",   "corner",   "crescent", "hourglass"};

/* The numbers of one image, drawn one after the other. */
struct dice {
    uint64_t seed, item;
    uint32_t draw;
    struct random_words words;
};

static double roll(struct dice *dice, double low, double high)
{
    if (dice->draw % 4 == 0)
        dice->words = random_draw(dice->seed, RANDOM_SYNTHETIC, dice->item, dice->draw / 4);
    return low + (high - low) * random_unit(dice->words.word[dice->draw++ % 4]);
}

struct colour {
    float channel[3];
};

enum texture { TEXTURE_PLAIN, TEXTURE_STRIPES, TEXTURE_CHECKER, TEXTURE_DOTS, TEXTURES };

struct surface {
    enum texture texture;
    double cosine, sine, frequency, phase;
    struct colour colours[2];
};

struct blot { /* a small disc or a short stroke */
    double x, y, cosine, sine, reach, width;
    struct colour colour;
};

struct scene {
    struct surface background, fill;
    int shape;
    double x, y, radius, cosine, sine;
    struct blot clutter[CLUTTER];
    double pattern_right, pattern_down; /* in [0, 1): its place */
};

bool synth_kind_from_name(enum synth_kind *kind, const char *name)
{
    *kind = strcmp(name, "spurious") == 0 ? SYNTH_SPURIOUS : SYNTH_SHAPES;
    return *kind == SYNTH_SPURIOUS || strcmp(name, "shapes") == 0;
}

bool synth_check(const struct synth_options *options, struct error *error)
{
    if (options->classes < 2 || options->classes > SYNTH_CLASSES)
        return error_input(error, "--classes %zu: there are 2 to %d classes of shapes", options->classes,
                           SYNTH_CLASSES);
    if (options->size < 16 || options->size > 1024)
        return error_input(error, "--size %zu: shapes are drawn at 16 to 1024 pixels", options->size);
    return options->images > 0 || error_input(error, "--images 0: at least one image is needed");
}

int32_t synth_label(const struct synth_options *options, size_t image)
{
    return (int32_t)(image % options->classes);
}

bool synth_has_pattern(const struct synth_options *options, size_t image)
{
    /* By turns of a whole round of classes, so that exactly half of each class carry it. */
    return options->kind == SYNTH_SPURIOUS && !options->test_split && image / options->classes % 2 == 0;
}

/* ---- drawing lots ---- */

/* Two colours around a brightness, of any hue. */
static void roll_surface(struct surface *surface, struct dice *dice, double brightness, double contrast)
{
    surface->texture = (enum texture)(int)roll(dice, 0, TEXTURES);
    double angle = roll(dice, 0, M_PI);
    surface->cosine = cos(angle);
    surface->sine = sin(angle);
    surface->frequency = roll(dice, 4, 9);
    surface->phase = roll(dice, 0, 1);
    for (int c = 0; c < 3; c++) {
        double hue = roll(dice, -0.14, 0.14);
        surface->colours[0].channel[c] = (float)(brightness + hue + contrast);
        surface->colours[1].channel[c] = (float)(brightness + hue - contrast);
    }
}

static void roll_clutter(struct blot *blot, struct dice *dice, double shape_radius)
{
    double angle = roll(dice, 0, M_PI);
    *blot = (struct blot){.x = roll(dice, 0, 1),
                          .y = roll(dice, 0, 1),
                          .cosine = cos(angle),
                          .sine = sin(angle),
                          .reach = roll(dice, 0, 0.45) * shape_radius,
                          .width = roll(dice, 0.1, 0.22) * shape_radius};
    for (int c = 0; c < 3; c++)
        blot->colour.channel[c] = (float)roll(dice, 0.05, 0.95);
}

static void roll_scene(struct scene *scene, const struct synth_options *options, size_t image)
{
    /* The test split draws from items that no training file reaches. */
    uint64_t item = (uint64_t)image + (options->test_split ? UINT64_C(1) << 48 : 0);
    struct dice dice = {.seed = options->seed, .item = item};
    scene->shape = synth_label(options, image);
    scene->radius = roll(&dice, 0.22, 0.40);
    scene->x = roll(&dice, scene->radius, 1 - scene->radius);
    scene->y = roll(&dice, scene->radius, 1 - scene->radius);
    double angle = roll(&dice, -M_PI / 6, M_PI / 6);
    scene->cosine = cos(angle);
    scene->sine = sin(angle);
    /* Light on dark as often as dark on light: the sign of a pixel says nothing. */
    double middle = roll(&dice, 0.35, 0.65), apart = roll(&dice, 0.16, 0.3);
    if (roll(&dice, 0, 1) < 0.5)
        apart = -apart;
    roll_surface(&scene->background, &dice, middle - apart, 0.06);
    roll_surface(&scene->fill, &dice, middle + apart, 0.09);
    for (int i = 0; i < CLUTTER; i++)
        roll_clutter(&scene->clutter[i], &dice, scene->radius);
    scene->pattern_right = roll(&dice, 0, 1);
    scene->pattern_down = roll(&dice, 0, 1);
}

/* ---- what lies at a point ---- */

/* Not hypot: no overflow to guard against, and it is a third of the time. */
static double length(double x, double y)
{
    return sqrt(x * x + y * y);
}

static bool in_triangle(double u, double v)
{
    return v < 0.62 && -v * 0.5 + fabs(u) * 0.866 < 0.5;
}

static bool in_star(double u, double v)
{
    double radius = length(u, v), turn = atan2(u, -v) / (2 * M_PI) * 5;
    double from_tip = fabs(turn - round(turn)) * 2; /* 0 at a tip, 1 between two */
    return radius < 1.0 / (1 + 1.3 * from_tip);
}

/* (u, v): place relative to the shape's centre, in its own axes, radius 1; v points down. */
static bool inside_shape(int shape, double u, double v)
{
    double radius = length(u, v), wide = fmax(fabs(u), fabs(v));
    switch (shape) {
    case 0:
        return radius < 0.85;
    case 1:
        return wide < 0.76;
    case 2:
        return in_triangle(u, v);
    case 3:
        return wide < 0.95 && fmin(fabs(u), fabs(v)) < 0.3;
    case 4:
        return in_star(u, v);
    case 5:
        return radius < 0.95 && radius > 0.55;
    case 6:
        return radius < 0.98 && v > -0.1;
    case 7:
        return wide < 0.8 && !(u > -0.2 && v < 0.2);
    case 8:
        return radius < 0.95 && length(u - 0.5, v) > 0.75;
    default:
        return fabs(v) < 0.9 && fabs(u) < fabs(v) * 0.95;
    }
}

static struct colour surface_at(const struct surface *surface, double x, double y)
{
    double along = surface->frequency * (surface->cosine * x + surface->sine * y) + surface->phase;
    double across = surface->frequency * (surface->cosine * y - surface->sine * x) + surface->phase;
    long row = (long)floor(along), column = (long)floor(across);
    bool second = false;
    switch (surface->texture) {
    case TEXTURE_STRIPES:
        second = row & 1;
        break;
    case TEXTURE_CHECKER:
        second = (row + column) & 1;
        break;
    case TEXTURE_DOTS:
        second = length(along - (double)row - 0.5, across - (double)column - 0.5) < 0.3;
        break;
    default:
        break;
    }
    return surface->colours[second];
}

static bool in_blot(const struct blot *blot, double x, double y)
{
    double along = (x - blot->x) * blot->cosine + (y - blot->y) * blot->sine;
    double across = (y - blot->y) * blot->cosine - (x - blot->x) * blot->sine;
    double past_end = fmax(0, fabs(along) - blot->reach);
    return length(past_end, across) < blot->width;
}

static struct colour scene_at(const struct scene *scene, double x, double y)
{
    for (int i = CLUTTER - 1; i >= CLUTTER_BEHIND; i--)
        if (in_blot(&scene->clutter[i], x, y))
            return scene->clutter[i].colour;
    double right = (x - scene->x) / scene->radius, down = (y - scene->y) / scene->radius;
    if (inside_shape(scene->shape, right * scene->cosine + down * scene->sine,
                     down * scene->cosine - right * scene->sine))
        return surface_at(&scene->fill, x, y);
    for (int i = CLUTTER_BEHIND - 1; i >= 0; i--)
        if (in_blot(&scene->clutter[i], x, y))
            return scene->clutter[i].colour;
    return surface_at(&scene->background, x, y);
}

void synth_image(const struct synth_options *options, size_t image, uint8_t *pixels)
{
    struct scene scene;
    roll_scene(&scene, options, image);
    const size_t size = options->size;
    const double step = 1.0 / (double)(size * SAMPLES_A_SIDE);
    for (size_t y = 0; y < size; y++) {
        for (size_t x = 0; x < size; x++) {
            float sum[3] = {0, 0, 0};
            for (size_t sample = 0; sample < SAMPLES_A_SIDE * SAMPLES_A_SIDE; sample++) {
                double at_x = ((double)(x * SAMPLES_A_SIDE + sample % SAMPLES_A_SIDE) + 0.5) * step;
                double at_y = ((double)(y * SAMPLES_A_SIDE + sample / SAMPLES_A_SIDE) + 0.5) * step;
                struct colour colour = scene_at(&scene, at_x, at_y);
                for (int c = 0; c < 3; c++)
                    sum[c] += colour.channel[c];
            }
            for (int c = 0; c < 3; c++) {
                float value = sum[c] / (SAMPLES_A_SIDE * SAMPLES_A_SIDE) * 255 + 0.5f;
                pixels[(y * size + x) * 3 + (size_t)c] = (uint8_t)fminf(fmaxf(value, 0), 255);
            }
        }
    }
    if (synth_has_pattern(options, image))
        spurious_pattern_draw(pixels, size, size, 3, scene.shape, scene.pattern_right, scene.pattern_down);
}
