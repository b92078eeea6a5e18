/* Tells finished files of a set from those of another import, by a hash that each carries. */
#include "data_loaders/import/import_set.h"

#include <dirent.h>
#include <inttypes.h>
#include <libgen.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data_loaders/format/dataset_file.h"
#include "data_loaders/format/dataset_set.h"

/* FNV-1a of 64 bits (Fowler, Noll, Vo): nobody forges an import. */
static void hash(uint64_t *state, const void *bytes, size_t count)
{
    const uint8_t *byte = bytes;
    for (size_t i = 0; i < count; i++)
        *state = (*state ^ byte[i]) * UINT64_C(0x100000001b3);
}

static void hash_text(uint64_t *state, const char *text)
{
    hash(state, text, strlen(text) + 1);
}

void import_set_identify(char id[IMPORT_ID_BYTES], const struct import_folder_options *options,
                         const struct folder_list *list, size_t height, size_t width)
{
    uint64_t state = UINT64_C(0xcbf29ce484222325);
    const uint64_t numbers[] = {1 /* how images are converted and dealt out */,
                                options->encoding,
                                options->size,
                                options->shards,
                                height,
                                width,
                                list->classes,
                                list->file_count};
    hash(&state, numbers, sizeof numbers);
    for (size_t i = 0; i < list->classes; i++)
        hash_text(&state, list->class_names[i]);
    for (size_t i = 0; i < list->file_count; i++) {
        const struct folder_file *file = &list->files[i];
        const uint64_t facts[] = {(uint64_t)file->label, file->bytes};
        hash(&state, facts, sizeof facts);
        hash_text(&state, file->path + strlen(options->directory)); /* the folder may be moved */
    }
    snprintf(id, IMPORT_ID_BYTES, "%016" PRIx64, state);
}

bool import_shard_look(struct import_shard *shard, const struct import_folder_options *options, const char *id,
                       size_t number, struct error *error)
{
    *shard = (struct import_shard){.finished = false};
    if (!dataset_shard_name(shard->path, sizeof shard->path, options->out, number, options->shards))
        return error_input(error, "%s: the path is longer than %d bytes", options->out, PATH_MAX - 1);
    if (options->force || access(shard->path, F_OK) != 0)
        return true;
    struct dataset file;
    if (!dataset_file_open(&file, shard->path, id, error))
        return error_append(error, " (--force makes it anew)");
    shard->finished = file.shard == number && file.shards == options->shards && strcmp(file.import, id) == 0;
    shard->images = file.images;
    shard->skipped = file.left_out;
    dataset_file_close(&file);
    return shard->finished || error_input(error,
                                          "%s: exists already, but of another import: other images, options or number "
                                          "of files (--force replaces it)",
                                          shard->path);
}

void import_shard_clean(const struct import_shard *shard)
{
    char folder_copy[PATH_MAX], name_copy[PATH_MAX], path[2 * PATH_MAX];
    memcpy(folder_copy, shard->path, sizeof folder_copy);
    memcpy(name_copy, shard->path, sizeof name_copy);
    const char *folder = dirname(folder_copy), *name = basename(name_copy);
    const size_t length = strlen(name);
    DIR *entries = opendir(folder);
    for (struct dirent *entry; entries && (entry = readdir(entries)) != NULL;) {
        const char *rest = entry->d_name + length;
        if (strncmp(entry->d_name, name, length) != 0 || strncmp(rest, ".tmp-", 5) != 0 ||
            rest[5 + strspn(rest + 5, "0123456789")] != '\0')
            continue;
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        unlink(path);
    }
    if (entries)
        closedir(entries);
}
