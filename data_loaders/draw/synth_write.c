/* `quest-data synth`: synthetic images as a dataset file. */
#include "data_loaders/draw/made_images.h"
#include "data_loaders/draw/synth.h"

static bool draw(const void *owner, size_t image, uint8_t *pixels, struct error *error)
{
    (void)error;
    synth_image(owner, image, pixels);
    return true;
}

static int32_t label_of(const void *owner, size_t image)
{
    return synth_label(owner, image);
}

bool synth_write(const struct synth_options *options, const char *path, bool force, struct error *error)
{
    struct made_images drawings = {.what = "drawing",
                                   .images = options->images,
                                   .layout = {.encoding = ENCODING_RAW,
                                              .height = options->size,
                                              .width = options->size,
                                              .channels = 3,
                                              .classes = options->classes,
                                              .class_names = synth_class_names},
                                   .owner = options,
                                   .make = draw,
                                   .label = label_of};
    return synth_check(options, error) && made_images_write(&drawings, path, force, error);
}
