/* Imports CIFAR-10's binary files: both splits are converted before either gets its name. */
#include "data_loaders/import/import.h"

#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data_loaders/format/dataset_write.h"
#include "src/base/stop_signal.h"
#include "src/base/work_progress.h"

enum { SIDE = 32, PLANE = SIDE * SIDE, RECORD = 1 + 3 * PLANE, RECORDS = 10000, CLASSES = 10 };

static const char *const class_names[CLASSES] = {"airplane", "automobile", "bird",  "cat",  "deer",
                                                 "dog",      "frog",       "horse", "ship", "truck"};

/* Planes of red, green and blue -> pixels. */
static void interleave(uint8_t *pixels, const uint8_t *planes)
{
    for (size_t i = 0; i < PLANE; i++)
        for (size_t c = 0; c < 3; c++)
            pixels[3 * i + c] = planes[c * PLANE + i];
}

static bool append_records(struct dataset_writer *writer, FILE *file, const char *path, struct error *error)
{
    uint8_t record[RECORD], pixels[3 * PLANE];
    size_t index = 0;
    for (size_t got; (got = fread(record, 1, RECORD, file)) > 0; index++) {
        if (stop_signal_raised())
            return error_runtime(error, "%s: interrupted at record %zu; nothing is kept", path, index);
        if (got != RECORD || index >= RECORDS)
            return error_input(error, "%s: is not %d records of %d bytes; download it again", path, RECORDS, RECORD);
        if (record[0] >= CLASSES)
            return error_input(error, "%s: record %zu has label %u, but CIFAR-10 has %d classes", path, index,
                               record[0], CLASSES);
        interleave(pixels, record + 1);
        struct pixel_sums sums = {0};
        pixel_sums_add(&sums, &(struct pixels){pixels, SIDE, SIDE, 3, 3 * SIDE});
        if (!dataset_writer_append(writer, pixels, sizeof pixels, record[0], &sums, error))
            return false;
    }
    if (ferror(file))
        return error_input(error, "%s: %s", path, strerror(errno));
    return index == RECORDS ||
           error_input(error, "%s: holds %zu of %d records; download it again", path, index, RECORDS);
}

static bool append_batch(struct dataset_writer *writer, const char *directory, const char *name, struct error *error)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *file = fopen(path, "rb");
    if (!file)
        return error_input(error, "%s: %s", path, strerror(errno));
    bool ok = append_records(writer, file, path, error);
    fclose(file);
    return ok;
}

/* Everything but the name: the caller finishes or discards what it is handed. */
static bool write_split(struct dataset_writer **split, const char *directory, const char *const *batches, size_t count,
                        const char *out, bool force, struct error *error)
{
    struct dataset_layout layout = {.encoding = ENCODING_RAW,
                                    .height = SIDE,
                                    .width = SIDE,
                                    .channels = 3,
                                    .classes = CLASSES,
                                    .class_names = class_names};
    struct dataset_writer *writer;
    if (!dataset_writer_open(&writer, out, &layout, force, error))
        return false;
    struct work_progress progress = work_progress_begin("importing", count * RECORDS);
    for (size_t i = 0; i < count; i++) {
        if (!append_batch(writer, directory, batches[i], error)) {
            work_progress_clear(&progress);
            dataset_writer_discard(writer);
            return false;
        }
        work_progress_update(&progress, (i + 1) * RECORDS);
    }
    work_progress_end(&progress, dataset_writer_images(writer));
    *split = writer;
    return true;
}

/* ---- before anything is written ---- */

static bool check_batch(const char *directory, const char *name, struct error *error)
{
    char path[PATH_MAX];
    struct stat status;
    if ((size_t)snprintf(path, sizeof path, "%s/%s", directory, name) >= sizeof path)
        return error_input(error, "%s: the path is too long", directory);
    if (stat(path, &status) != 0)
        return error_input(error, "%s: %s (the binary version of CIFAR-10 is expected)", path, strerror(errno));
    return status.st_size == (off_t)RECORDS * RECORD ||
           error_input(error, "%s: holds %lld bytes, not %d records of %d; download it again", path,
                       (long long)status.st_size, RECORDS, RECORD);
}

/* One name in one folder, however it is spelled. */
static bool are_one_place(const char *a, const char *b)
{
    char folders[2][PATH_MAX], names[2][PATH_MAX];
    struct stat first, second;
    for (int i = 0; i < 2; i++) {
        snprintf(folders[i], PATH_MAX, "%s", i ? b : a);
        snprintf(names[i], PATH_MAX, "%s", i ? b : a);
    }
    return strcmp(basename(names[0]), basename(names[1])) == 0 && stat(dirname(folders[0]), &first) == 0 &&
           stat(dirname(folders[1]), &second) == 0 && first.st_dev == second.st_dev && first.st_ino == second.st_ino;
}

static bool check_outputs(const char *out_train, const char *out_test, bool force, struct error *error)
{
    if (are_one_place(out_train, out_test))
        return error_input(error, "%s: named for both --out-train and --out-test", out_test);
    const char *const outputs[] = {out_train, out_test};
    for (int i = 0; i < 2; i++) {
        struct stat status;
        if (!force && access(outputs[i], F_OK) == 0)
            return error_input(error, "%s: exists already (--force replaces it)", outputs[i]);
        if (lstat(outputs[i], &status) == 0 && S_ISDIR(status.st_mode))
            return error_input(error, "%s: is a folder", outputs[i]);
    }
    return true;
}

bool import_cifar10(const char *directory, const char *out_train, const char *out_test, bool force, struct error *error)
{
    static const char *const batches[] = {"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin",
                                          "data_batch_4.bin", "data_batch_5.bin", "test_batch.bin"};
    if (!check_outputs(out_train, out_test, force, error))
        return false;
    for (size_t i = 0; i < sizeof batches / sizeof *batches; i++)
        if (!check_batch(directory, batches[i], error))
            return false;
    struct dataset_writer *train, *test;
    if (!write_split(&train, directory, batches, 5, out_train, force, error))
        return false;
    /* Neither file appears before both splits are converted. The writer opened last is closed first: each puts HDF5's
     * error handler back as it found it. */
    if (!write_split(&test, directory, batches + 5, 1, out_test, force, error) || !dataset_writer_finish(test, error)) {
        dataset_writer_discard(train);
        return false;
    }
    return dataset_writer_finish(train, error);
}
