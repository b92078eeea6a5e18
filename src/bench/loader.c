/* quest-bench loader: the loader on a dataset (drawn where none is given), beside libturbojpeg alone. */
#include "src/bench/loader.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <turbojpeg.h>

#include "data_loaders/draw/synth.h"
#include "data_loaders/format/dataset_write.h"
#include "data_loaders/load/loader.h"
#include "src/base/clock.h"
#include "src/bench/options.h"

enum { DRAWN_IMAGES = 512, PATCH = 16, CROP_PADDING = 4, JPEG_QUALITY = 90, ROUNDS = 3 };

struct arguments {
    const char *data, *recipe;
    bool jpeg, json, reduced;
    size_t image_size, batch, workers, seconds;
};

static const struct command_option options[] = {
    {"data", "F.h5", "Dataset, also a pattern [drawn shapes of the image size, in a temporary file]", command_line_text,
     INTO(data)},
    {"encoding", "raw|jpeg", "Of the drawn images [raw]", command_line_choice, INTO(jpeg)},
    {"recipe", "R", "Augmentation: plain (flip and shift), deit or deit3 [plain]", command_line_text, INTO(recipe)},
    {"reduced-decode", NULL, "JPEG streams are decoded smaller where the crop allows it", command_line_flag,
     INTO(reduced)},
    {"image-size", "S", "A multiple of 16 [224]", command_line_count, INTO(image_size)},
    {"batch", "B", "Images a batch [64]", command_line_count, INTO(batch)},
    {"workers", "N", "Threads [1]", command_line_count, INTO(workers)},
    {"seconds", "T", "Measured time [6]", command_line_count, INTO(seconds)},
    BENCH_JSON,
    {0},
};

static const struct command_line command_line = {
    .options = options, .meaning = "Times the loader: reading, decoding, crop, flip, patches."};

/* Images, wall time and CPU time of this process. */
struct measured {
    size_t images;
    double wall_s, cpu_s;
};

static double cpu_s(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           1e-6 * (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

/* ---- a dataset where none is given ---- */

static bool append_drawn(struct dataset_writer *writer, const struct synth_options *synth, size_t image, bool jpeg,
                         tjhandle encoder, uint8_t *pixels, struct error *error)
{
    const int size = (int)synth->size;
    struct pixel_sums sums = {0};
    synth_image(synth, image, pixels);
    pixel_sums_add(&sums, &(struct pixels){pixels, synth->size, synth->size, 3, synth->size * 3});
    if (!jpeg)
        return dataset_writer_append(writer, pixels, synth->size * synth->size * 3, synth_label(synth, image), &sums,
                                     error);
    unsigned char *stream = NULL;
    unsigned long bytes = 0;
    bool ok = tjCompress2(encoder, pixels, size, 0, size, TJPF_RGB, &stream, &bytes, TJSAMP_420, JPEG_QUALITY, 0) == 0
                  ? dataset_writer_append(writer, stream, bytes, synth_label(synth, image), &sums, error)
                  : error_runtime(error, "libturbojpeg: %s", tjGetErrorStr2(encoder));
    tjFree(stream);
    return ok;
}

static bool draw_dataset(const struct arguments *arguments, const char *path, struct error *error)
{
    struct synth_options synth = {.images = DRAWN_IMAGES, .size = arguments->image_size, .classes = SYNTH_CLASSES};
    struct dataset_layout layout = {.encoding = arguments->jpeg ? ENCODING_JPEG : ENCODING_RAW,
                                    .height = synth.size,
                                    .width = synth.size,
                                    .channels = 3,
                                    .classes = SYNTH_CLASSES};
    struct dataset_writer *writer;
    if (!synth_check(&synth, error) || !dataset_writer_open(&writer, path, &layout, false, error))
        return false;
    tjhandle encoder = tjInitCompress();
    uint8_t *pixels = malloc(synth.size * synth.size * 3);
    bool ok = (encoder && pixels) || error_runtime(error, "no memory for drawing images");
    for (size_t i = 0; ok && i < synth.images; i++)
        ok = append_drawn(writer, &synth, i, arguments->jpeg, encoder, pixels, error);
    if (encoder)
        tjDestroy(encoder);
    free(pixels);
    if (!ok)
        dataset_writer_discard(writer);
    return ok && dataset_writer_finish(writer, error);
}

static bool open_dataset(struct dataset *dataset, const struct arguments *arguments, struct error *error)
{
    if (arguments->data)
        return dataset_open(dataset, arguments->data, error);
    const char *directory = getenv("TMPDIR");
    char path[512];
    snprintf(path, sizeof path, "%s/quest-bench-%ld.h5", directory ? directory : "/tmp", (long)getpid());
    bool ok = draw_dataset(arguments, path, error) && dataset_open(dataset, path, error);
    unlink(path); /* the open descriptor keeps the contents */
    return ok;
}

/* ---- measuring ---- */

static bool use_batches(struct loader *loader, double seconds, struct measured *measured, struct error *error)
{
    double start_s = clock_s(), cpu_start_s = cpu_s();
    measured->images = 0;
    do {
        struct batch *batch;
        if (!loader_next(loader, &batch, NULL, error))
            return false;
        measured->images += batch->count;
        loader_release(loader, batch);
        measured->wall_s = clock_s() - start_s;
    } while (measured->wall_s < seconds);
    measured->cpu_s = cpu_s() - cpu_start_s;
    return true;
}

/* What the recipes do to a picture (docs/recipes.md). */
static bool augment_of(struct augment *augment, const char *recipe, struct error *error)
{
    *augment = (struct augment){.flip = true, .crop_padding = CROP_PADDING};
    if (!recipe || strcmp(recipe, "plain") == 0)
        return true;
    *augment = (struct augment){.interpolation = INTERPOLATION_BICUBIC};
    augment->flip = augment->random_resized_crop = true;
    augment->crop_scale_min = 0.08;
    augment->crop_scale_max = 1;
    if (strcmp(recipe, "deit") == 0)
        return rand_augment_parse(&augment->rand_augment, "rand-m9-mstd0.5-inc1", error);
    augment->three_augment = true;
    augment->colour_jitter = 0.3;
    return strcmp(recipe, "deit3") == 0 ||
           error_input(error, "--recipe: '%s' is neither plain, deit nor deit3", recipe);
}

static bool measure_loader(const struct arguments *arguments, const struct dataset *dataset, double seconds,
                           struct measured *measured, struct error *error)
{
    struct loader_options loader_options = {.dataset = dataset,
                                            .image_size = arguments->image_size,
                                            .patch_size = PATCH,
                                            .world_size = 1,
                                            .batch = arguments->batch,
                                            .accumulate = 1,
                                            .shuffle = true,
                                            .workers = arguments->workers,
                                            .prefetch = 2};
    struct loader *loader;
    struct measured warm;
    if (!augment_of(&loader_options.augment, arguments->recipe, error))
        return false;
    loader_options.augment.reduced_decode = arguments->reduced;
    if (!loader_open(&loader, &loader_options, error))
        return false;
    bool ok = use_batches(loader, 0.2 * seconds, &warm, error) && use_batches(loader, seconds, measured, error);
    loader_close(loader);
    return ok;
}

/* Streams in memory and a buffer of pixels for the yardstick. */
struct decoding {
    tjhandle decoder;
    uint8_t **streams, *pixels;
    size_t images, capacity;
};

static bool decode_one(struct decoding *decoding, size_t image, size_t stream_bytes, int format, struct error *error)
{
    int width, height, subsampling, colourspace;
    bool ok = tjDecompressHeader3(decoding->decoder, decoding->streams[image], stream_bytes, &width, &height,
                                  &subsampling, &colourspace) == 0;
    size_t bytes = ok ? (size_t)width * (size_t)height * (size_t)tjPixelSize[format] : 0;
    if (bytes > decoding->capacity) {
        free(decoding->pixels);
        decoding->pixels = malloc(bytes);
        decoding->capacity = bytes;
    }
    ok = ok && decoding->pixels &&
         tjDecompress2(decoding->decoder, decoding->streams[image], stream_bytes, decoding->pixels, width, 0, height,
                       format, 0) == 0;
    return ok || error_runtime(error, "image %zu: libturbojpeg: %s", image, tjGetErrorStr2(decoding->decoder));
}

static bool load_streams(struct decoding *decoding, const struct dataset *dataset, struct error *error)
{
    decoding->images = dataset->images < DRAWN_IMAGES ? dataset->images : DRAWN_IMAGES;
    decoding->streams = calloc(decoding->images, sizeof *decoding->streams);
    decoding->decoder = tjInitDecompress();
    if (!decoding->streams || !decoding->decoder)
        return error_runtime(error, "no memory for %zu streams", decoding->images);
    for (size_t i = 0; i < decoding->images; i++) {
        decoding->streams[i] = malloc(dataset_stored_bytes(dataset, i) + 1);
        if (!decoding->streams[i])
            return error_runtime(error, "no memory for a stream");
        if (!dataset_read(dataset, i, decoding->streams[i], error))
            return false;
    }
    return true;
}

/* One thread, streams already in memory, whole pictures at full size: nothing but libturbojpeg. */
static bool measure_decoder(const struct dataset *dataset, double seconds, struct measured *measured,
                            struct error *error)
{
    struct decoding decoding = {0};
    const int format = dataset->channels == 1 ? TJPF_GRAY : TJPF_RGB;
    bool ok = load_streams(&decoding, dataset, error);
    double start_s = clock_s(), cpu_start_s = cpu_s();
    *measured = (struct measured){0};
    for (; ok && measured->wall_s < seconds; measured->wall_s = clock_s() - start_s) {
        size_t i = measured->images++ % decoding.images;
        ok = decode_one(&decoding, i, dataset_stored_bytes(dataset, i), format, error);
    }
    measured->cpu_s = cpu_s() - cpu_start_s;
    for (size_t i = 0; decoding.streams && i < decoding.images; i++)
        free(decoding.streams[i]);
    free(decoding.streams);
    free(decoding.pixels);
    if (decoding.decoder)
        tjDestroy(decoding.decoder);
    return ok;
}

static double per_cpu_s(const struct measured *measured)
{
    return measured->cpu_s > 0 ? (double)measured->images / measured->cpu_s : 0;
}

/* The best of a few rounds, loader and decoder by turns, because other programs disturb both. "Per core" is per second
 * of CPU time, which counts what the system does for us (reading) and not what others do. */
static bool measure(const struct arguments *arguments, const struct dataset *dataset, struct measured *loader,
                    struct measured *decoder, struct error *error)
{
    const double seconds = (double)arguments->seconds / ROUNDS;
    *loader = *decoder = (struct measured){0};
    for (int round = 0; round < ROUNDS; round++) {
        struct measured now;
        if (!measure_loader(arguments, dataset, seconds, &now, error))
            return false;
        if (per_cpu_s(&now) > per_cpu_s(loader))
            *loader = now;
        if (dataset->encoding != ENCODING_JPEG)
            continue;
        if (!measure_decoder(dataset, seconds, &now, error))
            return false;
        if (per_cpu_s(&now) > per_cpu_s(decoder))
            *decoder = now;
    }
    return true;
}

static void print(const struct arguments *arguments, const struct dataset *dataset, const struct measured *loader,
                  const struct measured *decoder)
{
    bool jpeg = dataset->encoding == ENCODING_JPEG;
    double rate = (double)loader->images / loader->wall_s, a_core = per_cpu_s(loader), alone = per_cpu_s(decoder);
    if (arguments->json) {
        printf("{\"encoding\":\"%s\",\"image_size\":%zu,\"workers\":%zu,\"images_per_s\":%.1f,"
               "\"images_per_s_per_core\":%.1f",
               jpeg ? "jpeg" : "raw", arguments->image_size, arguments->workers, rate, a_core);
        if (jpeg)
            printf(",\"decoder_images_per_s_per_core\":%.1f,\"decoder_ratio\":%.3f", alone, a_core / alone);
        printf("}\n");
        return;
    }
    printf("%s %zux%zu, %zu workers: %.0f images/s, %.0f images/s a core", jpeg ? "jpeg" : "raw", arguments->image_size,
           arguments->image_size, arguments->workers, rate, a_core);
    if (jpeg)
        printf("; libturbojpeg alone %.0f images/s a core, ratio %.2f", alone, a_core / alone);
    printf("\n");
}

bool bench_loader(struct comm *comm, int argc, char **argv, struct error *error)
{
    struct arguments arguments = {.image_size = 224, .batch = 64, .workers = 1, .seconds = 6};
    struct measured loader, decoder;
    struct dataset dataset;
    if (!comm_agree(comm, command_line_parse(&command_line, argc, argv, &arguments, error), error))
        return false;
    bool ok = open_dataset(&dataset, &arguments, error);
    if (ok) {
        ok = measure(&arguments, &dataset, &loader, &decoder, error);
        if (ok && comm_rank(comm) == 0)
            print(&arguments, &dataset, &loader, &decoder);
        dataset_close(&dataset);
    }
    return comm_agree(comm, ok, error);
}
