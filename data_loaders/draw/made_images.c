/* Writes a dataset whose images a function makes, on several threads. */
#include "data_loaders/draw/made_images.h"

#include <stdlib.h>

#include "src/base/ordered_work.h"
#include "src/base/work_progress.h"

struct making {
    const struct made_images *made;
    struct dataset_writer *writer;
    struct work_progress progress;
};

struct made_image {
    struct pixel_sums sums;
    bool ok;
    struct error error;
    uint8_t pixels[];
};

static size_t image_bytes(const struct dataset_layout *layout)
{
    return layout->height * layout->width * layout->channels;
}

static void *make(void *owner, size_t worker, size_t image)
{
    (void)worker;
    const struct made_images *made = ((struct making *)owner)->made;
    const struct dataset_layout *layout = &made->layout;
    struct made_image *result = calloc(1, sizeof *result + image_bytes(layout) + PIXELS_SLACK_BYTES);
    if (!result)
        return NULL;
    result->ok = made->make(made->owner, image, result->pixels, &result->error);
    if (result->ok)
        pixel_sums_add(&result->sums, &(struct pixels){result->pixels, layout->height, layout->width, layout->channels,
                                                       layout->width * layout->channels});
    return result;
}

static bool keep(void *owner, size_t image, void *made_image, struct error *error)
{
    struct making *making = owner;
    const struct made_images *made = making->made;
    struct made_image *result = made_image;
    if (!result)
        return error_runtime(error, "no memory for image %zu", image);
    bool ok = result->ok;
    if (!ok)
        *error = result->error;
    else
        ok = dataset_writer_append(making->writer, result->pixels, image_bytes(&made->layout),
                                   made->label(made->owner, image), &result->sums, error);
    free(result);
    work_progress_update(&making->progress, image + 1);
    return ok;
}

static void drop(void *owner, void *result)
{
    (void)owner;
    free(result);
}

bool made_images_write(const struct made_images *made, const char *path, bool force, struct error *error)
{
    struct making making = {.made = made, .progress = work_progress_begin(made->what, made->images)};
    if (!dataset_writer_open(&making.writer, path, &made->layout, force, error))
        return false;
    struct ordered_work work = {.items = made->images,
                                .workers = ordered_work_cpus(),
                                .owner = &making,
                                .make = make,
                                .take = keep,
                                .drop = drop};
    if (!ordered_work_run(&work, error)) {
        work_progress_clear(&making.progress);
        dataset_writer_discard(making.writer);
        return false;
    }
    work_progress_end(&making.progress, made->images);
    return dataset_writer_finish(making.writer, error);
}
