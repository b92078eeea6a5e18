/* `quest-data verify`: decodes every image on all CPUs and compares mean and std with the header. */
#include "data_loaders/format/verify.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "data_loaders/format/dataset_write.h"
#include "data_loaders/format/image_read.h"
#include "src/base/ordered_work.h"
#include "src/base/work_progress.h"

/* Other programs may have summed in float32, or measured a sample of the pixels before a decoder update. */
static const double TOLERANCE = 2e-3;

struct verifying {
    const struct dataset *dataset;
    struct image_reader **readers;
    struct pixel_sums sums;
    size_t damaged, first_damaged;
    struct work_progress progress;
};

struct verified {
    struct pixel_sums sums;
    struct error error;
};

static void *look(void *owner, size_t worker, size_t image)
{
    struct verifying *verifying = owner;
    struct verified *verified = calloc(1, sizeof *verified);
    size_t height, width;
    struct pixels pixels;
    if (verified && image_load(verifying->readers[worker], image, &height, &width, &verified->error) &&
        image_decode(verifying->readers[worker], NULL, 0, &pixels, &verified->error))
        pixel_sums_add(&verified->sums, &pixels);
    return verified;
}

static void drop(void *owner, void *result)
{
    (void)owner;
    free(result);
}

static bool note(void *owner, size_t image, void *result, struct error *error)
{
    struct verifying *verifying = owner;
    struct verified *verified = result;
    bool ok = verified != NULL || error_runtime(error, "no memory for image %zu", image);
    if (ok && verified->error.status == ERROR_RUNTIME) {
        *error = verified->error;
        ok = false;
    } else if (ok && verified->error.status == ERROR_INPUT) {
        work_progress_clear(&verifying->progress);
        fprintf(stderr, "damaged: %s\n", verified->error.message);
        if (verifying->damaged++ == 0)
            verifying->first_damaged = image;
    } else if (ok) {
        pixel_sums_merge(&verifying->sums, &verified->sums);
    }
    free(verified);
    work_progress_update(&verifying->progress, image + 1);
    return ok;
}

static bool check_moments(const struct verifying *verifying, struct error *error)
{
    const struct dataset *dataset = verifying->dataset;
    float mean[3], std[3];
    pixel_sums_moments(&verifying->sums, dataset->channels, mean, std);
    for (size_t c = 0; c < dataset->channels; c++)
        if (fabs((double)(mean[c] - dataset->mean[c])) > TOLERANCE ||
            fabs((double)(std[c] - dataset->std[c])) > TOLERANCE)
            return error_input(error,
                               "%s: channel %zu has mean %.4f and std %.4f, but the file says %.4f and %.4f; import it "
                               "again",
                               dataset->path, c, (double)mean[c], (double)std[c], (double)dataset->mean[c],
                               (double)dataset->std[c]);
    return true;
}

static bool look_at_all(struct verifying *verifying, size_t workers, struct error *error)
{
    const struct dataset *dataset = verifying->dataset;
    verifying->readers = calloc(workers, sizeof(struct image_reader *));
    if (!verifying->readers)
        return error_runtime(error, "no memory for %zu workers", workers);
    for (size_t i = 0; i < workers; i++)
        if (!image_reader_open(&verifying->readers[i], dataset, error))
            return false;
    struct ordered_work work = {
        .items = dataset->images, .workers = workers, .owner = verifying, .make = look, .take = note, .drop = drop};
    verifying->progress = work_progress_begin("verifying", dataset->images);
    bool ok = ordered_work_run(&work, error);
    if (ok)
        work_progress_end(&verifying->progress, dataset->images);
    else
        work_progress_clear(&verifying->progress);
    return ok;
}

bool dataset_verify(const struct dataset *dataset, struct error *error)
{
    struct verifying verifying = {.dataset = dataset};
    size_t workers = ordered_work_cpus();
    bool ok = look_at_all(&verifying, workers, error);
    for (size_t i = 0; verifying.readers && i < workers; i++)
        image_reader_close(verifying.readers[i]);
    free(verifying.readers);
    if (ok && verifying.damaged > 0) {
        size_t inside;
        const struct dataset *file = dataset_file_of(dataset, verifying.first_damaged, &inside);
        ok = error_input(error, "%s: %zu of %zu images are damaged, the first is image %zu%s%s; import the file again",
                         dataset->path, verifying.damaged, dataset->images, inside, dataset->files ? " of " : "",
                         dataset->files ? file->path : "");
    }
    return ok && check_moments(&verifying, error);
}
