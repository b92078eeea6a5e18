/* Opening the data, and asking whether all ranks read the same. */
#include "src/train/datasets.h"

#include <stdlib.h>
#include <string.h>

#include "data_loaders/format/dataset_classes.h"
#include "data_loaders/format/dataset_stage.h"
#include "src/base/clock.h"
#include "src/base/crc32c.h"

bool trainer_open_datasets(struct trainer *trainer, struct error *error)
{
    struct config *config = trainer->config;
    if (!dataset_open(&trainer->train, config->data.train, error))
        return false;
    trainer->has_val = config->data.val[0] != '\0';
    if (trainer->has_val && !dataset_open(&trainer->val, config->data.val, error))
        return false;
    if (config->model.classes == 0)
        config->model.classes = (int64_t)trainer->train.classes;
    const struct dataset *sets[] = {&trainer->train, trainer->has_val ? &trainer->val : &trainer->train};
    for (size_t i = 0; i < 2; i++) {
        if (sets[i]->classes > (size_t)config->model.classes)
            return error_input(error, "%s: %zu classes, but model.classes is %lld", sets[i]->path, sets[i]->classes,
                               (long long)config->model.classes);
        if (sets[i]->channels != trainer->train.channels)
            return error_input(error, "%s: %zu channels, but %s has %zu", sets[i]->path, sets[i]->channels,
                               trainer->train.path, trainer->train.channels);
    }
    trainer->class_names = dataset_class_lines(&trainer->train);
    return !trainer->has_val || dataset_match_classes(&trainer->val, trainer->class_names, trainer->train.classes,
                                                      trainer->train.path, error);
}

/* What a dataset teaches, in short. */
struct dataset_print {
    uint64_t images, classes;
    uint32_t labels, moments;
};

static struct dataset_print print_of(const struct dataset *dataset)
{
    float moments[8];
    memcpy(moments, dataset->mean, sizeof dataset->mean);
    memcpy(moments + 4, dataset->std, sizeof dataset->std);
    return (struct dataset_print){dataset->images, dataset->classes,
                                  crc32c(dataset->labels, dataset->images * sizeof *dataset->labels),
                                  crc32c(moments, sizeof moments)};
}

/* A host with an old copy of a file would train on without a word, each rank in its own way. */
bool trainer_check_same(struct trainer *trainer, struct error *error)
{
    struct {
        struct dataset_print train, val;
        uint64_t config;
    } mine = {.train = print_of(&trainer->train)}, first;
    if (trainer->has_val)
        mine.val = print_of(&trainer->val);
    char *yaml = config_format(trainer->config);
    mine.config = yaml ? crc32c(yaml, strlen(yaml)) : 0;
    free(yaml);
    first = mine;
    if (!comm_broadcast(trainer->comm, &first, sizeof first, 0, error))
        return false;
    bool ok = true;
    if (memcmp(&mine.train, &first.train, sizeof mine.train) != 0)
        ok = error_input(error, "%s: is not what rank 0 reads under this name", trainer->train.path);
    else if (memcmp(&mine.val, &first.val, sizeof mine.val) != 0)
        ok = error_input(error, "%s: is not what rank 0 reads under this name", trainer->val.path);
    else if (mine.config != first.config)
        ok = error_input(error, "the configuration differs from rank 0's");
    return comm_agree(trainer->comm, ok, error);
}

/* ---- copies on each host ---- */

/* What the ranks did, said by rank 0. */
static bool say_staged(struct trainer *trainer, const struct staged_files *mine, double start_s, struct error *error)
{
    struct comm *comm = trainer->comm;
    const char *folder = trainer->config->data.stage;
    double sums[4] = {(double)mine->copied, (double)mine->there, (double)mine->no_room, (double)mine->copied_bytes};
    double full = mine->no_room > 0 ? comm_rank(comm) : comm_world_size(comm);
    if (!comm_agree(comm, comm_reduce(comm, sums, 4, COMM_SUM, error), error) ||
        !comm_agree(comm, comm_reduce(comm, &full, 1, COMM_MIN, error), error))
        return false;
    progress_say(&trainer->progress, "data: %.0f files copied to %s (%.2f GB in %.1f s on all hosts), %.0f were there",
                 sums[0], folder, 1e-9 * sums[3], clock_s() - start_s, sums[1]);
    if (sums[2] > 0)
        progress_warn(&trainer->progress,
                      "data.stage: %s has no room for %.0f files, the first on %s; they are read from their own place",
                      folder, sums[2], comm_host_of(comm, (int)full));
    return true;
}

bool trainer_stage_datasets(struct trainer *trainer, struct error *error)
{
    struct comm *comm = trainer->comm;
    const char *folder = trainer->config->data.stage;
    struct dataset *sets[] = {&trainer->train, &trainer->val};
    const size_t count = trainer->has_val ? 2 : 1;
    const double start_s = clock_s();
    struct staged_files staged = {0};
    bool ok = true;
    if (!folder[0])
        return true;
    for (size_t i = 0; ok && i < count; i++)
        ok = dataset_stage(sets[i], folder, (size_t)comm_local_rank(comm), (size_t)comm_local_size(comm), &staged,
                           error);
    if (!comm_agree(comm, ok, error))
        return false;
    for (size_t i = 0; ok && i < count; i++)
        ok = dataset_use_staged(sets[i], folder, error);
    return comm_agree(comm, ok, error) && say_staged(trainer, &staged, start_s, error);
}
