/* Hostile datasets: opened as every program opens them, then the first images are read, decoded and cut into patches.
 * What opens must be as the header of dataset.h says. libhdf5 itself is not instrumented: crashes inside it on damaged
 * metadata are its own (docs/data.md says what that means). */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "data_loaders/format/dataset.h"
#include "data_loaders/load/sample.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { IMAGES = 8, SIZE = 8, PATCH = 4 };

static void check_promises(const struct dataset *dataset)
{
    if (dataset->images == 0 || dataset->classes == 0 || (dataset->channels != 1 && dataset->channels != 3))
        abort();
    for (size_t i = 0; i < dataset->images; i++)
        if (dataset->labels[i] < 0 || (size_t)dataset->labels[i] >= dataset->classes)
            abort();
}

static void read_images(const struct dataset *dataset)
{
    struct sample_options options = {.dataset = dataset, .image_size = SIZE, .patch_size = PATCH, .evaluation = true};
    struct sample_maker *maker;
    struct error error = {0};
    uint8_t patches[SIZE * SIZE * 3];
    if (!sample_maker_open(&maker, &options, &error))
        return;
    for (size_t i = 0; i < dataset->images && i < IMAGES; i++)
        if (!sample_make(maker, patches, i, i, &error) && error.message[0] == '\0')
            abort();
    sample_maker_close(maker);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int file = memfd_create("dataset", MFD_CLOEXEC);
    char path[64];
    struct dataset dataset;
    struct error error = {0};
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    if (file >= 0 && write(file, data, size) == (ssize_t)size) {
        if (dataset_open(&dataset, path, &error)) {
            check_promises(&dataset);
            read_images(&dataset);
            dataset_close(&dataset);
        } else if (error.message[0] == '\0') {
            abort();
        }
    }
    if (file >= 0)
        close(file);
    return 0;
}
