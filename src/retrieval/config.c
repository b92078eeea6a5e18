/* The keys of a retrieval run, read as any configuration is, and the grid: every combination of the listed values. */
#include "src/retrieval/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/config/schema.h"

static const char *const kind_names[] = {"standard", "quest", "qnorm", "qknorm_unit", NULL};

#define FIELD(member)        offsetof(struct retrieval_config, member), sizeof(((struct retrieval_config *)0)->member)
#define INTEGER(member)      CONFIG_INTEGER, FIELD(member)
#define REAL(member)         CONFIG_REAL, FIELD(member)
#define BOOLEAN(member)      CONFIG_BOOLEAN, FIELD(member)
#define TEXT(member)         CONFIG_TEXT, FIELD(member)
#define CHOICE(member, list) CONFIG_CHOICE, FIELD(member), .names = (list)

/* clang-format off: a row reads as path, field, default; limits */
static const struct config_key keys[] = {
    {"specification", TEXT(specification), .initial = "run"},
    {"attention.kind", CHOICE(attention.kind, kind_names), .initial = "quest"},
    {"model.biases", BOOLEAN(model.biases), .initial = "false"},
    {"model.tied_start", BOOLEAN(model.tied_start), .initial = "false"},
    {"data.biased_share", REAL(data.biased_share), .initial = "0.5", .minimum = 0, .maximum = 1},
    {"data.bias_length", REAL(data.bias_length), .initial = "4.0", .minimum = 0, .maximum = 1000},
    {"data.biased_variance", REAL(data.biased_variance), .initial = "0.1", .minimum = 0, .maximum = 1000},
    {"data.answer_variance", REAL(data.answer_variance), .initial = "16.0", .minimum = 0, .maximum = 1000},
    {"train.steps", INTEGER(train.steps), .initial = "4000", .minimum = 1, .maximum = 1e8},
    {"train.batch_size", INTEGER(train.batch_size), .initial = "32", .minimum = 1, .maximum = 65536},
    {"train.seed", INTEGER(train.seed), .initial = "0", .minimum = 0, .maximum = 0x1p53},
    {"optim.lr", REAL(optim.lr), .initial = "1.0e-3", .minimum = 0, .above = true, .maximum = 1000},
    {"optim.weight_decay", REAL(optim.weight_decay), .initial = "0.0", .minimum = 0, .maximum = 1000},
    {"optim.beta1", REAL(optim.beta1), .initial = "0.9", .minimum = 0, .maximum = 1, .below = true},
    {"optim.beta2", REAL(optim.beta2), .initial = "0.999", .minimum = 0, .maximum = 1, .below = true},
    {"optim.eps", REAL(optim.eps), .initial = "1.0e-8", .minimum = 0, .above = true, .maximum = 1},
    {"log.every", INTEGER(log.every), .initial = "50", .minimum = 1, .maximum = 1e8},
    {"test.samples", INTEGER(test.samples), .initial = "1024", .minimum = 1, .maximum = 1e8},
    {"grid.kinds", TEXT(grid.kinds), .initial = ""},
    {"grid.lr", TEXT(grid.lr), .initial = ""},
    {"grid.weight_decay", TEXT(grid.weight_decay), .initial = ""},
    {"grid.seeds", INTEGER(grid.seeds), .initial = "1", .minimum = 1, .maximum = 10000},
};
/* clang-format on */
_Static_assert(sizeof keys / sizeof keys[0] <= CONFIG_KEYS_MAX, "raise CONFIG_KEYS_MAX");

static const struct config_schema schema = {
    .keys = keys,
    .count = sizeof keys / sizeof keys[0],
    .bytes = sizeof(struct retrieval_config),
    .reference = "configs/experiments/retrieval/a.yaml has them all",
    .header = "# The resolved configuration of one run of the retrieval experiment. See docs/experiments.md.\n",
};

char *retrieval_config_format(const struct retrieval_config *config)
{
    return config_format_schema(&schema, config);
}

const char *retrieval_kind_name(enum retrieval_kind kind)
{
    return kind_names[kind];
}

/* ---- the grid ---- */

/* One axis: a list of values for a key, and the key that gave the list. */
struct axis {
    const char *key, *list_key, *list;
};
enum { AXES = 3 };

struct expansion {
    const struct config_reading *reading;
    struct retrieval_grid *grid;
    struct axis axes[AXES];
};

/* The next value of a list with commas, without blanks around it; false at its end. */
static bool next_value(char *value, size_t value_bytes, const char **list)
{
    if (!*list)
        return false;
    const char *begin = *list + strspn(*list, " "), *end = begin + strcspn(begin, ",");
    *list = *end ? end + 1 : NULL;
    while (end > begin && end[-1] == ' ')
        end--;
    snprintf(value, value_bytes, "%.*s", (int)(end - begin), begin);
    return true;
}

static bool add_seeds(struct expansion *expansion, const struct retrieval_config *config)
{
    struct retrieval_grid *grid = expansion->grid;
    size_t seeds = (size_t)config->grid.seeds, count = grid->count + seeds;
    struct retrieval_config *runs = realloc(grid->runs, count * sizeof *runs);
    if (!runs)
        return error_runtime(expansion->reading->error, "out of memory for a grid of %zu runs", count);
    grid->runs = runs;
    for (size_t seed = 0; seed < seeds; seed++) {
        struct retrieval_config *run = &runs[grid->count++];
        *run = *config;
        run->train.seed += (int64_t)seed;
        memset(&run->grid, 0, sizeof run->grid); /* so that a run is the same in every grid that has it */
        run->grid.seeds = 1;
    }
    return true;
}

/* All values of the axes from `depth` on. An axis without a list keeps the value of its key. */
static bool expand(struct expansion *expansion, const struct retrieval_config *config, size_t depth)
{
    const struct config_reading *reading = expansion->reading;
    char value[64];
    if (depth == AXES)
        return add_seeds(expansion, config);
    const struct axis *axis = &expansion->axes[depth];
    const char *list = axis->list;
    if (!*list)
        return expand(expansion, config, depth + 1);
    while (next_value(value, sizeof value, &list)) {
        struct retrieval_config chosen = *config;
        const struct config_key *key = &keys[config_key_find(&schema, axis->key)];
        if (!config_value_set(&chosen, key, value, false, reading->error))
            return config_refuse_value(reading, axis->list_key);
        if (!expand(expansion, &chosen, depth + 1))
            return false;
    }
    return true;
}

static bool expand_all(struct retrieval_grid *grid, const struct config_reading *reading,
                       const struct retrieval_choice *choice)
{
    struct retrieval_config config = *(struct retrieval_config *)reading->config;
    struct config_reading named = *reading;
    if (choice->kinds) { /* then a mistake in the list is one of the command line */
        named.name = "--kinds";
        named.places[config_key_find(&schema, "grid.kinds")] = (struct config_place){0};
    }
    struct expansion expansion = {.reading = &named, .grid = grid};
    expansion.axes[0] =
        (struct axis){"attention.kind", "grid.kinds", choice->kinds ? choice->kinds : config.grid.kinds};
    expansion.axes[1] = (struct axis){"optim.lr", "grid.lr", config.grid.lr};
    expansion.axes[2] = (struct axis){"optim.weight_decay", "grid.weight_decay", config.grid.weight_decay};
    if (choice->seeds)
        config.grid.seeds = (int64_t)choice->seeds;
    return expand(&expansion, &config, 0);
}

bool retrieval_grid_read(struct retrieval_grid *grid, const char *path, const struct retrieval_choice *choice,
                         struct error *error)
{
    struct retrieval_config config;
    struct config_reading reading = {.schema = &schema, .config = &config, .name = path, .error = error};
    char *text;
    size_t bytes;
    bool ok = config_read_file(&text, &bytes, path, error) &&
              config_read(&reading, text, bytes, choice->overrides, choice->override_count);
    free(text);
    if (!ok)
        return false;
    if (!config.specification[0] || strspn(config.specification, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                                                 "0123456789_") != strlen(config.specification))
        return config_refuse(&reading, "specification", "'%s' is not letters and digits; it names directories",
                             config.specification);
    if (choice->specification && strcmp(choice->specification, config.specification) != 0)
        return true;
    return expand_all(grid, &reading, choice);
}

void retrieval_grid_close(struct retrieval_grid *grid)
{
    free(grid->runs);
    *grid = (struct retrieval_grid){0};
}
