#include "data_loaders/synth.h"

#include <stdlib.h>

#include "data_loaders/dataset_write.h"
#include "data_loaders/ordered_work.h"
#include "data_loaders/work_progress.h"

struct drawing {
    const struct synth_options *options;
    struct dataset_writer *writer;
    struct work_progress progress;
};

struct drawn {
    struct pixel_sums sums;
    uint8_t pixels[];
};

static void *draw(void *owner, size_t worker, size_t image)
{
    (void)worker;
    const struct synth_options *options = ((struct drawing *)owner)->options;
    struct drawn *drawn = calloc(1, sizeof *drawn + options->size * options->size * 3 + PATCHES_SLACK_BYTES);
    if (!drawn)
        return NULL;
    synth_image(options, image, drawn->pixels);
    pixel_sums_add(&drawn->sums, &(struct pixels){drawn->pixels, options->size, options->size, 3, options->size * 3});
    return drawn;
}

static bool keep(void *owner, size_t image, void *result, struct error *error)
{
    struct drawing *drawing = owner;
    const struct synth_options *options = drawing->options;
    struct drawn *drawn = result;
    bool ok = drawn ? dataset_writer_append(drawing->writer, drawn->pixels, options->size * options->size * 3,
                                            synth_label(options, image), &drawn->sums, error)
                    : error_runtime(error, "no memory for image %zu", image);
    free(drawn);
    work_progress_update(&drawing->progress, image + 1);
    return ok;
}

static void drop(void *owner, void *result)
{
    (void)owner;
    free(result);
}

bool synth_write(const struct synth_options *options, const char *path, bool force, struct error *error)
{
    if (!synth_check(options, error))
        return false;
    struct drawing drawing = {.options = options, .progress = work_progress_begin("drawing", options->images)};
    struct dataset_layout layout = {.encoding = ENCODING_RAW,
                                    .height = options->size,
                                    .width = options->size,
                                    .channels = 3,
                                    .classes = options->classes,
                                    .class_names = synth_class_names};
    if (!dataset_writer_open(&drawing.writer, path, &layout, force, error))
        return false;
    struct ordered_work work = {.items = options->images,
                                .workers = ordered_work_cpus(),
                                .owner = &drawing,
                                .make = draw,
                                .take = keep,
                                .drop = drop};
    if (!ordered_work_run(&work, error)) {
        work_progress_clear(&drawing.progress);
        dataset_writer_discard(drawing.writer);
        return false;
    }
    work_progress_end(&drawing.progress, options->images);
    return dataset_writer_finish(drawing.writer, error);
}
