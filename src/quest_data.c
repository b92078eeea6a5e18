/* quest-data: makes datasets, says what is in them and checks them (docs/data.md). */
#include <argp.h>
#include <errno.h>
#include <signal.h>
#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data_loaders/dataset.h"
#include "data_loaders/dataset_report.h"
#include "data_loaders/image_convert.h"
#include "data_loaders/import.h"
#include "data_loaders/plant.h"
#include "data_loaders/synth.h"
#include "data_loaders/verify.h"
#include "src/command_line.h"
#include "src/error.h"
#include "src/stop_signal.h"

enum option_key {
    OPTION_OUT = 'o',
    OPTION_SIZE = 's',
    OPTION_ENCODING = 'e',
    OPTION_WORKERS = 'w',
    OPTION_FORCE = 'f',
    OPTION_OUT_TRAIN = 256,
    OPTION_OUT_TEST,
    OPTION_IMAGES,
    OPTION_CLASSES,
    OPTION_SEED,
    OPTION_SPLIT,
    OPTION_ALL,
    OPTION_JSON
};

/* All commands' options in one struct; each command's argp offers those that it reads. */
struct arguments {
    const char *argument; /* DIR, KIND or F.h5 */
    const char *out, *out_train, *out_test;
    size_t size, workers, seed;
    bool jpeg, all, force, json;
    struct synth_options synth;
    struct error *error; /* what is wrong with the command line */
};

static error_t number(struct arguments *arguments, size_t *value, const char *text, size_t most, const char *option)
{
    char *end;
    errno = 0;
    unsigned long long parsed = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != '\0' || errno != 0 || parsed > most) {
        error_input(arguments->error, "%s: '%s' is not a whole number from 0 to %zu", option, text, most);
        return EINVAL;
    }
    *value = parsed;
    return 0;
}

/* *second = whether `text` is the second of two words. */
static error_t choice(struct arguments *arguments, bool *second, const char *text, const char *const words[2],
                      const char *option)
{
    *second = strcmp(text, words[1]) == 0;
    if (*second || strcmp(text, words[0]) == 0)
        return 0;
    error_input(arguments->error, "%s: '%s' is neither %s nor %s", option, text, words[0], words[1]);
    return EINVAL;
}

static error_t parse_argument(struct arguments *arguments, const char *text)
{
    if (arguments->argument) {
        error_input(arguments->error, "'%s' is one argument too many", text);
        return EINVAL;
    }
    arguments->argument = text;
    return 0;
}

static error_t parse(int key, char *text, struct argp_state *state)
{
    struct arguments *arguments = state->input;
    switch (key) {
    case OPTION_OUT:
        arguments->out = text;
        return 0;
    case OPTION_OUT_TRAIN:
        arguments->out_train = text;
        return 0;
    case OPTION_OUT_TEST:
        arguments->out_test = text;
        return 0;
    case OPTION_SIZE:
        return number(arguments, &arguments->size, text, 16384, "--size");
    case OPTION_WORKERS:
        return number(arguments, &arguments->workers, text, 1024, "--workers");
    case OPTION_IMAGES:
        return number(arguments, &arguments->synth.images, text, 1000000000, "--images");
    case OPTION_CLASSES:
        return number(arguments, &arguments->synth.classes, text, SYNTH_CLASSES, "--classes");
    case OPTION_SEED:
        return number(arguments, &arguments->seed, text, SIZE_MAX, "--seed");
    case OPTION_ENCODING:
        return choice(arguments, &arguments->jpeg, text, (const char *const[]){"raw", "jpeg"}, "--encoding");
    case OPTION_SPLIT:
        return choice(arguments, &arguments->synth.test_split, text, (const char *const[]){"train", "test"}, "--split");
    case OPTION_FORCE:
        arguments->force = true;
        return 0;
    case OPTION_ALL:
        arguments->all = true;
        return 0;
    case OPTION_JSON:
        arguments->json = true;
        return 0;
    case ARGP_KEY_ARG:
        return parse_argument(arguments, text);
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* ---- commands: each returns the exit status ---- */

static int fail(const struct error *error)
{
    fprintf(stderr, "error: %s\n", error->message);
    return (int)error->status;
}

static int missing(const char *option)
{
    struct error error;
    error_input(&error, "%s FILE is missing: where shall the dataset go?", option);
    return fail(&error);
}

static int run_import_folder(const struct arguments *arguments)
{
    struct error error;
    if (!arguments->out)
        return missing("--out");
    struct import_folder_options options = {.directory = arguments->argument,
                                            .out = arguments->out,
                                            .encoding = arguments->jpeg ? ENCODING_JPEG : ENCODING_RAW,
                                            .size = arguments->size,
                                            .workers = arguments->workers,
                                            .force = arguments->force};
    size_t images = 0, skipped = 0;
    if (!image_convert_begin("quest-data", &error) || !import_folder(&options, &images, &skipped, &error))
        return fail(&error);
    printf("%s: %zu images\n", arguments->out, images);
    if (skipped == 0)
        return 0;
    error_runtime(&error, "%s: %zu file%s could not be imported (named above); %s holds the other %zu images",
                  arguments->argument, skipped, skipped == 1 ? "" : "s", arguments->out, images);
    return fail(&error);
}

static int run_import_cifar10(const struct arguments *arguments)
{
    struct error error;
    if (!arguments->out_train || !arguments->out_test)
        return missing(arguments->out_train ? "--out-test" : "--out-train");
    if (!import_cifar10(arguments->argument, arguments->out_train, arguments->out_test, arguments->force, &error))
        return fail(&error);
    printf("%s: 50000 images\n%s: 10000 images\n", arguments->out_train, arguments->out_test);
    return 0;
}

static int run_synth(const struct arguments *arguments)
{
    struct error error;
    struct synth_options options = arguments->synth;
    options.seed = arguments->seed;
    if (arguments->size > 0)
        options.size = arguments->size;
    if (!arguments->out)
        return missing("--out");
    if (!synth_kind_from_name(&options.kind, arguments->argument)) {
        error_input(&error, "synth: '%s' is neither shapes nor spurious", arguments->argument);
        return fail(&error);
    }
    if (!synth_write(&options, arguments->out, arguments->force, &error))
        return fail(&error);
    printf("%s: %zu images\n", arguments->out, options.images);
    return 0;
}

static int run_plant(const struct arguments *arguments)
{
    struct error error;
    struct plant_options options = {.from = arguments->argument,
                                    .out = arguments->out,
                                    .seed = arguments->seed,
                                    .all = arguments->all,
                                    .force = arguments->force};
    size_t images, planted;
    if (!arguments->out)
        return missing("--out");
    if (!plant(&options, &images, &planted, &error))
        return fail(&error);
    printf("%s: %zu images, %zu with the pattern of their class\n", arguments->out, images, planted);
    return 0;
}

static int run_info(const struct arguments *arguments)
{
    struct error error;
    struct dataset dataset;
    if (!dataset_open(&dataset, arguments->argument, &error))
        return fail(&error);
    bool ok = (arguments->json ? dataset_report_json : dataset_report_table)(&dataset, stdout, &error);
    dataset_close(&dataset);
    return ok ? 0 : fail(&error);
}

static int run_verify(const struct arguments *arguments)
{
    struct error error;
    struct dataset dataset;
    if (!dataset_open(&dataset, arguments->argument, &error))
        return fail(&error);
    bool ok = dataset_verify(&dataset, &error);
    if (ok)
        printf("%s: %zu images, all whole\n", dataset.path, dataset.images);
    dataset_close(&dataset);
    return ok ? 0 : fail(&error);
}

/* ---- the command line ---- */

static const struct argp_option folder_options[] = {
    {"out", OPTION_OUT, "F.h5", 0, "The dataset to write", 0},
    {"size", OPTION_SIZE, "S", 0,
     "raw: resize the shorter side to S and cut out the centre square; jpeg: shrink where the shorter side is over S",
     0},
    {"encoding", OPTION_ENCODING, "raw|jpeg", 0, "raw reads fastest, jpeg is small [raw]", 0},
    {"workers", OPTION_WORKERS, "N", 0, "Threads [every CPU]", 0},
    {"force", OPTION_FORCE, NULL, 0, "Replace an existing file", 0},
    {0}};
static const struct argp_option cifar10_options[] = {
    {"out-train", OPTION_OUT_TRAIN, "A.h5", 0, "Where the 50000 training images go", 0},
    {"out-test", OPTION_OUT_TEST, "B.h5", 0, "Where the 10000 test images go", 0},
    {"force", OPTION_FORCE, NULL, 0, "Replace existing files", 0},
    {0}};
static const struct argp_option synth_options[] = {
    {"out", OPTION_OUT, "F.h5", 0, "The dataset to write", 0},
    {"images", OPTION_IMAGES, "N", 0, "How many [10000]", 0},
    {"size", OPTION_SIZE, "S", 0, "Side in pixels [32]", 0},
    {"classes", OPTION_CLASSES, "K", 0, "2 to 10 [10]", 0},
    {"seed", OPTION_SEED, "X", 0, "Other images [0]", 0},
    {"split", OPTION_SPLIT, "train|test", 0,
     "test: other samples of the same classes, without spurious patterns [train]", 0},
    {"force", OPTION_FORCE, NULL, 0, "Replace an existing file", 0},
    {0}};
static const struct argp_option plant_options[] = {
    {"out", OPTION_OUT, "G.h5", 0, "The dataset to write", 0},
    {"seed", OPTION_SEED, "X", 0, "Other places [0]", 0},
    {"all", OPTION_ALL, NULL, 0, "Every image, not half of each class", 0},
    {"force", OPTION_FORCE, NULL, 0, "Replace an existing file", 0},
    {0}};
static const struct argp_option info_options[] = {
    {"json", OPTION_JSON, NULL, 0, "One JSON object instead of a table", 0}, {0}};
static const struct argp_option no_options[] = {{0}};

static const struct command {
    const char *name;
    struct argp argp;
    int (*run)(const struct arguments *arguments);
} commands[] = {
    {"import-folder",
     {folder_options, parse, "DIR", "Import the images of DIR/<class>/<image>, of any format that libvips reads.", NULL,
      NULL, NULL},
     run_import_folder},
    {"import-cifar10",
     {cifar10_options, parse, "DIR", "Import the binary version of CIFAR-10 (data_batch_1.bin and so on).", NULL, NULL,
      NULL},
     run_import_cifar10},
    {"synth",
     {synth_options, parse, "KIND",
      "Draw images. KIND: shapes (textured shapes among clutter) or spurious (the same; half of the training images "
      "also carry a small pattern that gives the class away).",
      NULL, NULL, NULL},
     run_synth},
    {"plant",
     {plant_options, parse, "F.h5",
      "Copy a raw dataset of up to 10 classes; half of the images get a small pattern that gives the class away.", NULL,
      NULL, NULL},
     run_plant},
    {"info", {info_options, parse, "F.h5", "Say what a dataset holds.", NULL, NULL, NULL}, run_info},
    {"verify",
     {no_options, parse, "F.h5", "Read and decode every image and check the file's statistics.", NULL, NULL, NULL},
     run_verify},
};
enum { COMMANDS = sizeof commands / sizeof *commands };

static void usage(FILE *stream)
{
    fputs("Usage: quest-data COMMAND ... (quest-data COMMAND --help says more)\n", stream);
    for (size_t i = 0; i < COMMANDS; i++)
        fprintf(stream, "  %-15s %-5s %s\n", commands[i].name, commands[i].argp.args_doc, commands[i].argp.doc);
}

static int run_command(const struct command *command, int argc, char **argv)
{
    struct error error;
    struct arguments arguments = {.synth = {.images = 10000, .size = 32, .classes = 10}, .error = &error};
    char name[64];
    snprintf(name, sizeof name, "quest-data %s", command->name);
    argv[0] = name; /* so that messages and --help name the command */
    if (!command_line_parse(&command->argp, argc, argv, &arguments, &error))
        return fail(&error);
    if (!arguments.argument) {
        error_input(&error, "%s: %s is missing; %s --help explains it", name, command->argp.args_doc, name);
        return fail(&error);
    }
    return command->run(&arguments);
}

int main(int argc, char **argv)
{
    H5dont_atexit(); /* a file that a full disk keeps from closing would be closed again at exit, and crash there */
    struct error error;
    if (argc >= 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-?") == 0)) {
        usage(stdout);
        return 0;
    }
    if (argc >= 2 && (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0)) {
        puts("QUEST-Train " QUEST_VERSION);
        return 0;
    }
    /* A file that reaches its size limit is then an error of write(2), reported like a full disk. */
    signal(SIGXFSZ, SIG_IGN);
    if (!stop_signal_install(&error))
        return fail(&error);
    for (size_t i = 0; argc >= 2 && i < COMMANDS; i++)
        if (strcmp(argv[1], commands[i].name) == 0)
            return run_command(&commands[i], argc - 1, argv + 1);
    error_input(&error, "quest-data: there is no command '%s'; quest-data --help lists them",
                argc >= 2 ? argv[1] : "(none given)");
    return fail(&error);
}
