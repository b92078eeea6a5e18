/* Hostile tars: listed and read as quest-data import-tar does, down to the images' bytes. What is refused says why in
 * one line, and no image is larger than the tar that it is from. libarchive itself is not instrumented. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "data_loaders/import/tar_images.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_line(const struct error *error)
{
    if (error->status == ERROR_NONE || error->message[0] == '\0')
        abort();
}

static void read_images(struct tar_images *images, size_t size)
{
    struct tar_image image;
    struct error error = {0};
    bool end = false;
    while (!end) {
        if (!tar_images_next(images, &image, &end, &error)) {
            check_line(&error);
            return;
        }
        if (end)
            break;
        if (!image.name || image.byte_count > size || image.label < 0 ||
            (!image.bytes) != (image.error.status != ERROR_NONE))
            abort();
        tar_image_free(&image);
    }
    if (tar_images_class_names(images) && tar_images_classes(images) == 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int file = memfd_create("tar", MFD_CLOEXEC);
    char path[64];
    const char *const tars[] = {path};
    struct tar_images_options options = {.tars = tars, .tar_count = 1};
    struct tar_images *images;
    struct error error = {0};
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    if (file >= 0 && write(file, data, size) == (ssize_t)size) {
        if (tar_images_open(&images, &options, &error)) {
            read_images(images, size);
            tar_images_close(images);
        } else {
            check_line(&error);
        }
    }
    if (file >= 0)
        close(file);
    return 0;
}
