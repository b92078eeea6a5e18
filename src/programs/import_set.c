/* The ranks of a job make the files of one set (import_set.h). */
#include "src/programs/import_set.h"

#include <stdio.h>
#include <string.h>

#include "data_loaders/import/image_convert.h"
#include "src/comm/comm.h"

bool import_is_whole(const char *from, const char *out, size_t images, size_t skipped, struct error *error)
{
    return skipped == 0 || error_runtime(error,
                                         "%s: %zu file%s could not be imported (named above); %s holds the other %zu "
                                         "images",
                                         from, skipped, skipped == 1 ? "" : "s", out, images);
}

/* All ranks have come as far as to make files: of the same images? */
static bool agree(void *owner, const char *import, bool ok, struct error *error)
{
    struct comm *comm = owner;
    char first[40];
    snprintf(first, sizeof first, "%s", import);
    if (!comm_agree(comm, ok, error) || !comm_broadcast(comm, first, sizeof first, 0, error))
        return false;
    ok = strcmp(first, import) == 0 || error_input(error, "sees other images in the folder than rank 0; is it the same "
                                                          "on all hosts, and does nobody change it?");
    return comm_agree(comm, ok, error);
}

/* Sums over all ranks of what each of them made. */
static bool make_files(struct comm *comm, const struct import_folder_options *options, double sums[3],
                       struct error *error)
{
    struct imported_images result;
    if (!comm_agree(comm, image_convert_begin("quest-data", error), error) ||
        !comm_agree(comm, import_folder(options, &result, error), error))
        return false;
    sums[0] = (double)result.images;
    sums[1] = (double)result.skipped;
    sums[2] = (double)result.files_kept;
    return comm_agree(comm, comm_reduce(comm, sums, 3, COMM_SUM, error), error);
}

void import_set(struct import_folder_options *options)
{
    struct error error;
    struct comm *comm;
    char name[] = "quest-data", *names[] = {name, NULL}, **argv = names;
    int argc = 1;
    double sums[3];
    if (!comm_open(&comm, &argc, &argv, &error))
        comm_exit(comm, &error);
    options->rank = (size_t)comm_rank(comm);
    options->ranks = (size_t)comm_world_size(comm);
    options->agree = agree;
    options->owner = comm;
    if (!make_files(comm, options, sums, &error))
        comm_exit(comm, &error);
    if (options->rank == 0)
        printf("%s: %.0f images in %zu files, of which %.0f were there already\n", options->out, sums[0],
               options->shards, sums[2]);
    if (!import_is_whole(options->directory, options->out, (size_t)sums[0], (size_t)sums[1], &error)) {
        error_shared(&error);
        comm_exit(comm, &error);
    }
    comm_close(comm);
}
