/* quest-data: makes datasets, says what is in them and checks them (docs/data.md). */
#include <signal.h>
#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data_loaders/draw/plant.h"
#include "data_loaders/draw/synth.h"
#include "data_loaders/format/dataset.h"
#include "data_loaders/format/dataset_report.h"
#include "data_loaders/format/verify.h"
#include "data_loaders/import/image_convert.h"
#include "data_loaders/import/import.h"
#include "src/base/command_line.h"
#include "src/base/error.h"
#include "src/base/stop_signal.h"
#include "src/config/load.h"
#include "src/preview/preview.h"
#include "src/programs/import_set.h"

/* All commands' arguments in one struct; each command offers the options that it reads. */
struct arguments {
    const char *operand; /* DIR, KIND, F.h5 or CONFIG.yaml */
    const char **tars;   /* [tar_count] the operands of import-tar */
    size_t tar_count;
    const char *out, *out_train, *out_test, *labels, *classes;
    size_t size, workers, shards, seed, first_label;
    bool jpeg, all, force, json;
    struct synth_options synth;
    size_t images, override_count;
    const char **overrides;
};
#define INTO(member) .field = offsetof(struct arguments, member)

static bool take_operand(void *into, const char *text, struct error *error)
{
    struct arguments *arguments = into;
    if (arguments->operand)
        return error_input(error, "'%s' is one argument too many (put a pattern in quotes: 'train-*.h5')", text);
    arguments->operand = text;
    return true;
}

static bool take_tar(void *into, const char *text, struct error *error)
{
    struct arguments *arguments = into;
    const char **tars = realloc(arguments->tars, (arguments->tar_count + 1) * sizeof *tars);
    if (!tars)
        return error_runtime(error, "no memory for the list of tars");
    arguments->tars = tars;
    tars[arguments->tar_count++] = text;
    arguments->operand = tars[0];
    return true;
}

static bool take_override(void *into, const struct command_option *option, const char *text, struct error *error)
{
    struct arguments *arguments = into;
    (void)option, (void)error;
    arguments->overrides[arguments->override_count++] = text;
    return true;
}

/* ---- commands: each returns the exit status ---- */

static int missing(const char *option)
{
    struct error error;
    error_input(&error, "%s FILE is missing: where shall the dataset go?", option);
    return command_line_fail(&error);
}

/* Ranks that all wrote the same file would be in each other's way. */
static bool is_alone(const char *what_else, struct error *error)
{
    const char *ranks = getenv("OMPI_COMM_WORLD_SIZE");
    return !ranks || strtol(ranks, NULL, 10) <= 1 || error_input(error, "%s, or do without mpirun", what_else);
}

static int run_import_folder(const void *from)
{
    const struct arguments *arguments = from;
    struct error error;
    if (!arguments->out)
        return missing("--out");
    struct import_folder_options options = {.directory = arguments->operand,
                                            .out = arguments->out,
                                            .encoding = arguments->jpeg ? ENCODING_JPEG : ENCODING_RAW,
                                            .size = arguments->size,
                                            .workers = arguments->workers,
                                            .force = arguments->force,
                                            .shards = arguments->shards};
    struct imported_images result;
    if (options.shards > 0) {
        import_set(&options);
        return 0;
    }
    if (!is_alone("several ranks make the files of a set: give --shards N", &error) ||
        !image_convert_begin("quest-data", &error) || !import_folder(&options, &result, &error))
        return command_line_fail(&error);
    printf("%s: %zu images\n", arguments->out, result.images);
    return import_is_whole(arguments->operand, arguments->out, result.images, result.skipped, &error)
               ? 0
               : command_line_fail(&error);
}

static int run_import_tar(const void *from)
{
    const struct arguments *arguments = from;
    struct error error;
    if (!arguments->out)
        return missing("--out");
    struct import_tar_options options = {.from = {.tars = arguments->tars,
                                                  .tar_count = arguments->tar_count,
                                                  .classes = arguments->classes,
                                                  .labels = arguments->labels,
                                                  .first_label = arguments->first_label},
                                         .out = arguments->out,
                                         .encoding = arguments->jpeg ? ENCODING_JPEG : ENCODING_RAW,
                                         .size = arguments->size,
                                         .workers = arguments->workers,
                                         .shards = arguments->shards,
                                         .force = arguments->force};
    struct imported_images result;
    if (!is_alone("tars are read by one process: use its --workers", &error) ||
        !image_convert_begin("quest-data", &error) || !import_tar(&options, &result, &error))
        return command_line_fail(&error);
    printf("%s: %zu images\n", arguments->out, result.images);
    return import_is_whole(arguments->operand, arguments->out, result.images, result.skipped, &error)
               ? 0
               : command_line_fail(&error);
}

static int run_import_cifar10(const void *from)
{
    const struct arguments *arguments = from;
    struct error error;
    if (!arguments->out_train || !arguments->out_test)
        return missing(arguments->out_train ? "--out-test" : "--out-train");
    if (!import_cifar10(arguments->operand, arguments->out_train, arguments->out_test, arguments->force, &error))
        return command_line_fail(&error);
    printf("%s: 50000 images\n%s: 10000 images\n", arguments->out_train, arguments->out_test);
    return 0;
}

static int run_synth(const void *from)
{
    const struct arguments *arguments = from;
    struct error error;
    struct synth_options options = arguments->synth;
    options.seed = arguments->seed;
    if (arguments->size > 0)
        options.size = arguments->size;
    if (!arguments->out)
        return missing("--out");
    if (!synth_kind_from_name(&options.kind, arguments->operand)) {
        error_input(&error, "synth: '%s' is neither shapes nor spurious", arguments->operand);
        return command_line_fail(&error);
    }
    if (!synth_write(&options, arguments->out, arguments->force, &error))
        return command_line_fail(&error);
    printf("%s: %zu images\n", arguments->out, options.images);
    return 0;
}

static int run_plant(const void *from)
{
    const struct arguments *arguments = from;
    struct error error;
    struct plant_options options = {.from = arguments->operand,
                                    .out = arguments->out,
                                    .seed = arguments->seed,
                                    .all = arguments->all,
                                    .force = arguments->force};
    size_t images, planted;
    if (!arguments->out)
        return missing("--out");
    if (!plant(&options, &images, &planted, &error))
        return command_line_fail(&error);
    printf("%s: %zu images, %zu with the pattern of their class\n", arguments->out, images, planted);
    return 0;
}

static int run_info(const void *from)
{
    const struct arguments *arguments = from;
    struct error error;
    struct dataset dataset;
    if (!dataset_open(&dataset, arguments->operand, &error))
        return command_line_fail(&error);
    bool ok = (arguments->json ? dataset_report_json : dataset_report_table)(&dataset, stdout, &error);
    dataset_close(&dataset);
    return ok ? 0 : command_line_fail(&error);
}

static int run_verify(const void *from)
{
    const struct arguments *arguments = from;
    struct error error;
    struct dataset dataset;
    if (!dataset_open(&dataset, arguments->operand, &error))
        return command_line_fail(&error);
    bool ok = dataset_verify(&dataset, &error);
    if (ok)
        printf("%s: %zu images, all whole\n", dataset.path, dataset.images);
    dataset_close(&dataset);
    return ok ? 0 : command_line_fail(&error);
}

static int run_preview(const void *from)
{
    const struct arguments *arguments = from;
    struct error error;
    struct config config;
    if (!arguments->out) {
        error_input(&error, "--out FILE is missing: where shall the picture go?");
        return command_line_fail(&error);
    }
    struct preview_options options = {&config, arguments->out, arguments->images};
    if (!config_load(&config, arguments->operand, arguments->overrides, arguments->override_count, &error) ||
        !preview_write(&options, &error))
        return command_line_fail(&error);
    printf("%s: %zu samples of %s\n", arguments->out, arguments->images, config.data.train);
    return 0;
}

/* ---- the command line ---- */

static const struct command_option folder_options[] = {
    {"out", "F.h5", "The dataset to write", command_line_text, .letter = 'o', INTO(out)},
    {"size", "S",
     "raw: resize the shorter side to S and cut out the centre square; jpeg: shrink where the shorter side is over S",
     command_line_number, .letter = 's', .most = 16384, INTO(size)},
    {"encoding", "raw|jpeg", "raw reads fastest, jpeg is small [raw]", command_line_choice, .letter = 'e', INTO(jpeg)},
    {"shards", "N",
     "A set of N files, F-00000-of-N.h5 and so on, image i in file i mod N; the ranks of mpirun make them in turn, and "
     "those that are finished are kept",
     command_line_number, .letter = 'n', .most = 99999, INTO(shards)},
    {"workers", "N", "Threads [every CPU]", command_line_number, .letter = 'w', .most = 1024, INTO(workers)},
    {"force", NULL, "Replace existing files", command_line_flag, .letter = 'f', INTO(force)},
    {0}};
static const struct command_option tar_options[] = {
    {"out", "F.h5", "The dataset to write", command_line_text, .letter = 'o', INTO(out)},
    {"labels", "FILE", "The tar holds images alone; line i is the class of the i-th by name: a name, or a number",
     command_line_text, .letter = 'l', INTO(labels)},
    {"classes", "FILE", "Names of the classes (wnids), one a line, the first is class 0 [those in the tar, by name]",
     command_line_text, .letter = 'c', INTO(classes)},
    {"first-label", "N", "The number in --labels that means the first line of --classes [1, as in ImageNet's]",
     command_line_number, .most = 1, INTO(first_label)},
    {"size", "S",
     "raw: resize the shorter side to S and cut out the centre square; jpeg: shrink where the shorter side is over S",
     command_line_number, .letter = 's', .most = 16384, INTO(size)},
    {"encoding", "raw|jpeg", "raw reads fastest, jpeg is small [raw]", command_line_choice, .letter = 'e', INTO(jpeg)},
    {"shards", "N", "A set of N files, F-00000-of-N.h5 and so on, image i in file i mod N", command_line_number,
     .letter = 'n', .most = 1024, INTO(shards)},
    {"workers", "N", "Threads [every CPU]", command_line_number, .letter = 'w', .most = 1024, INTO(workers)},
    {"force", NULL, "Replace existing files", command_line_flag, .letter = 'f', INTO(force)},
    {0}};
static const struct command_option cifar10_options[] = {
    {"out-train", "A.h5", "Where the 50000 training images go", command_line_text, INTO(out_train)},
    {"out-test", "B.h5", "Where the 10000 test images go", command_line_text, INTO(out_test)},
    {"force", NULL, "Replace existing files", command_line_flag, .letter = 'f', INTO(force)},
    {0}};
static const struct command_option synth_options[] = {
    {"out", "F.h5", "The dataset to write", command_line_text, .letter = 'o', INTO(out)},
    {"images", "N", "How many [10000]", command_line_number, .most = 1000000000, INTO(synth.images)},
    {"size", "S", "Side in pixels [32]", command_line_number, .letter = 's', .most = 16384, INTO(size)},
    {"classes", "K", "2 to 10 [10]", command_line_number, .most = SYNTH_CLASSES, INTO(synth.classes)},
    {"seed", "X", "Other images [0]", command_line_number, .most = SIZE_MAX, INTO(seed)},
    {"split", "train|test", "test: other samples of the same classes, without spurious patterns [train]",
     command_line_choice, INTO(synth.test_split)},
    {"force", NULL, "Replace an existing file", command_line_flag, .letter = 'f', INTO(force)},
    {0}};
static const struct command_option plant_options[] = {
    {"out", "G.h5", "The dataset to write", command_line_text, .letter = 'o', INTO(out)},
    {"seed", "X", "Other places [0]", command_line_number, .most = SIZE_MAX, INTO(seed)},
    {"all", NULL, "Every image, not half of each class", command_line_flag, INTO(all)},
    {"force", NULL, "Replace an existing file", command_line_flag, .letter = 'f', INTO(force)},
    {0}};
static const struct command_option preview_options[] = {
    {"out", "P.png", "The picture to write", command_line_text, .letter = 'o', INTO(out)},
    {"images", "N", "How many samples, from the first on [24]", command_line_count, .letter = 'n', INTO(images)},
    {"set", "KEY.PATH=VALUE", "Override a key of the configuration; may be repeated", take_override, .field = 0},
    {0}};
static const struct command_option info_options[] = {
    {"json", NULL, "One JSON object instead of a table", command_line_flag, INTO(json)}, {0}};

static const struct command commands[] = {
    {"import-folder",
     {folder_options, "DIR", "Import the images of DIR/<class>/<image>, of any format that libvips reads.",
      take_operand, NULL},
     run_import_folder,
     1},
    {"import-tar",
     {tar_options, "TAR...",
      "Import images from tars, without unpacking them: ImageNet's training tar of tars, its validation tar with a "
      "list "
      "of labels, or WebDataset's KEY.jpg and KEY.cls.",
      take_tar, NULL},
     run_import_tar,
     1000000},
    {"import-cifar10",
     {cifar10_options, "DIR", "Import the binary version of CIFAR-10 (data_batch_1.bin and so on).", take_operand,
      NULL},
     run_import_cifar10,
     1},
    {"synth",
     {synth_options, "KIND",
      "Draw images. KIND: shapes (textured shapes among clutter) or spurious (the same; half of the training images "
      "also carry a small pattern that gives the class away).",
      take_operand, NULL},
     run_synth,
     1},
    {"plant",
     {plant_options, "F.h5",
      "Copy a raw dataset of up to 10 classes; half of the images get a small pattern that gives the class away.",
      take_operand, NULL},
     run_plant,
     1},
    {"info",
     {info_options, "F.h5", "Say what a dataset holds, a file or a pattern in quotes: 'train-*.h5'.", take_operand,
      NULL},
     run_info,
     1},
    {"verify",
     {NULL, "F.h5", "Read and decode every image and check the statistics, of a file or a pattern in quotes.",
      take_operand, NULL},
     run_verify,
     1},
    {"preview",
     {preview_options, "CONFIG.yaml",
      "Draw the first samples of a training as the model will get them: cropped, augmented, erased and mixed, with "
      "their classes and weights.",
      take_operand, NULL},
     run_preview,
     1},
};

static int run_command(const struct command *command, int argc, char **argv)
{
    struct error error;
    const char *overrides[argc];
    struct arguments arguments = {
        .first_label = 1, .synth = {.images = 10000, .size = 32, .classes = 10}, .images = 24, .overrides = overrides};
    if (!command_line_parse(&command->line, argc, argv, &arguments, &error))
        return command_line_fail(&error);
    if (!arguments.operand) {
        error_input(&error, "%s: %s is missing; %s --help explains it", argv[0], command->line.operands, argv[0]);
        return command_line_fail(&error);
    }
    int status = command->run(&arguments);
    free(arguments.tars);
    return status;
}

int main(int argc, char **argv)
{
    static const struct command_program program = {.name = "quest-data",
                                                   .commands = commands,
                                                   .count = sizeof commands / sizeof *commands,
                                                   .name_width = 15,
                                                   .operands_width = 5,
                                                   .run = run_command};
    struct error error;
    H5dont_atexit(); /* a file that a full disk keeps from closing would be closed again at exit, and crash there */
    /* A file that reaches its size limit is then an error of write(2), reported like a full disk. */
    signal(SIGXFSZ, SIG_IGN);
    if (!stop_signal_install(&error))
        return command_line_fail(&error);
    return command_line_main(&program, argc, argv);
}
