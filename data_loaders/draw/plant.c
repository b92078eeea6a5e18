/* `quest-data plant`: copies a dataset with the pattern drawn into chosen images. */
#include "data_loaders/draw/plant.h"

#include <stdlib.h>

#include "data_loaders/draw/made_images.h"
#include "data_loaders/draw/spurious_pattern.h"
#include "src/base/random.h"

struct planting {
    const struct dataset *dataset;
    uint64_t seed;
    bool *carries; /* [images] */
};

static bool check(const struct dataset *dataset, struct error *error)
{
    if (dataset->encoding != ENCODING_RAW)
        return error_input(error,
                           "%s: holds JPEG images, in which a pattern would not stay sharp; import with "
                           "--encoding raw",
                           dataset->path);
    if (dataset->classes > SPURIOUS_PATTERN_CLASSES)
        return error_input(error, "%s: has %zu classes; there are patterns for %d", dataset->path, dataset->classes,
                           SPURIOUS_PATTERN_CLASSES);
    return (dataset->height >= 16 && dataset->width >= 16) ||
           error_input(error, "%s: images of %zu x %zu pixels are too small; 16 are needed", dataset->path,
                       dataset->width, dataset->height);
}

static size_t choose(bool *carries, const struct dataset *dataset, bool all)
{
    bool next[SPURIOUS_PATTERN_CLASSES];
    size_t planted = 0;
    for (size_t label = 0; label < SPURIOUS_PATTERN_CLASSES; label++)
        next[label] = true;
    for (size_t i = 0; i < dataset->images; i++) {
        carries[i] = all || next[dataset->labels[i]];
        next[dataset->labels[i]] = !carries[i];
        planted += carries[i];
    }
    return planted;
}

static bool copy_image(const void *owner, size_t image, uint8_t *pixels, struct error *error)
{
    const struct planting *planting = owner;
    const struct dataset *dataset = planting->dataset;
    if (!dataset_read(dataset, image, pixels, error))
        return false;
    if (planting->carries[image]) {
        struct random_words place = random_draw(planting->seed, RANDOM_PLANT, image, 0);
        spurious_pattern_draw(pixels, dataset->height, dataset->width, dataset->channels, dataset->labels[image],
                              random_unit(place.word[0]), random_unit(place.word[1]));
    }
    return true;
}

static int32_t label_of(const void *owner, size_t image)
{
    return ((const struct planting *)owner)->dataset->labels[image];
}

bool plant(const struct plant_options *options, size_t *images, size_t *planted, struct error *error)
{
    struct dataset dataset;
    if (!dataset_open(&dataset, options->from, error))
        return false;
    struct planting planting = {
        .dataset = &dataset, .seed = options->seed, .carries = malloc(dataset.images * sizeof(bool))};
    struct made_images copies = {.what = "planting",
                                 .images = dataset.images,
                                 .layout = {.encoding = ENCODING_RAW,
                                            .height = dataset.height,
                                            .width = dataset.width,
                                            .channels = dataset.channels,
                                            .classes = dataset.classes,
                                            .class_names = (const char *const *)dataset.class_names},
                                 .owner = &planting,
                                 .make = copy_image,
                                 .label = label_of};
    bool ok = check(&dataset, error);
    if (ok && !planting.carries)
        ok = error_runtime(error, "%s: no memory for %zu images", dataset.path, dataset.images);
    if (ok) {
        *images = dataset.images;
        *planted = choose(planting.carries, &dataset, options->all);
        ok = made_images_write(&copies, options->out, options->force, error);
    }
    free(planting.carries);
    dataset_close(&dataset);
    return ok;
}
