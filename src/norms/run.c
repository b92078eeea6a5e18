/* Opening a run directory for reading, and what its config.yaml says. */
#include "src/norms/run.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "kernels/attention_kinds.h"
#include "src/config/config.h"
#include "src/files/file_output.h"
#include "src/log/segments.h"

static bool exists(const char *path)
{
    struct stat status;
    return stat(path, &status) == 0;
}

/* A configuration that cannot be read costs the names of settings, not the diagnosis. */
static void read_config(struct norms_run *run)
{
    struct error error;
    char *path = file_path(run->directory, "config.yaml"), *text = malloc(YAML_BYTES_MAX);
    FILE *file = path && text ? fopen(path, "re") : NULL;
    if (file) {
        size_t bytes = fread(text, 1, YAML_BYTES_MAX, file);
        run->has_config = yaml_flat_parse(&run->config, text, bytes, path, &error);
        fclose(file);
    }
    free(text);
    free(path);
    if (!run->has_config)
        return;
    const char *kind = norms_run_setting(run, "attention.kind");
    const char *image = norms_run_setting(run, "model.image_size"), *patch = norms_run_setting(run, "model.patch_size");
    if (kind && strcmp(kind, "qknorm_unit") == 0) /* of quest-retrieval: its scale is held at 1 */
        run->kind = ATTENTION_QKNORM_HS;
    else if (kind && !attention_kind_from_name(&run->kind, kind))
        run->kind = ATTENTION_STANDARD;
    double side = image && patch ? floor(atof(image) / fmax(atof(patch), 1)) : 0;
    run->tokens = side >= 1 && side < 1e4 ? (size_t)(side * side) + 1 : 0;
}

static bool open_log(struct log_reader *reader, const char *directory, const char *name, bool *found,
                     struct error *error)
{
    char *path = file_path(directory, name);
    if (!path)
        return error_runtime(error, "%s: out of memory", directory);
    uint64_t first, last;
    log_segments_range(path, &first, &last);
    *found = *found || last > 0 || exists(path);
    bool ok = log_reader_open(reader, path, error);
    free(path);
    return ok;
}

bool norms_run_open(struct norms_run *run, const char *directory, struct error *error)
{
    bool found = false;
    memset(run, 0, sizeof *run);
    run->metrics.file = run->norms.file = run->events.file = -1;
    run->directory = strdup(directory);
    if (!run->directory)
        return error_runtime(error, "%s: out of memory", directory);
    size_t bytes = strlen(directory);
    while (bytes > 1 && run->directory[bytes - 1] == '/')
        run->directory[--bytes] = '\0';
    file_last_part(run->name, sizeof run->name, run->directory);
    if (!exists(directory))
        return error_input(error, "%s: %s", directory, strerror(errno));
    if (!open_log(&run->metrics, directory, "metrics.jsonl", &found, error) ||
        !open_log(&run->norms, directory, "norms.jsonl", &found, error) ||
        !open_log(&run->events, directory, "events.jsonl", &found, error))
        return false;
    if (!found)
        return error_input(error,
                           "%s: holds neither metrics.jsonl nor norms.jsonl; give the run directory of quest-train "
                           "(its --out)",
                           directory);
    read_config(run);
    return true;
}

void norms_run_close(struct norms_run *run)
{
    log_reader_close(&run->metrics);
    log_reader_close(&run->norms);
    log_reader_close(&run->events);
    yaml_flat_free(&run->config);
    free(run->directory);
    run->directory = NULL;
}

const char *norms_run_setting(const struct norms_run *run, const char *path)
{
    for (size_t i = 0; i < run->config.count; i++)
        if (!run->config.entries[i].section && strcmp(run->config.entries[i].path, path) == 0)
            return run->config.entries[i].value;
    return NULL;
}

void norms_run_warn(const struct norms_run *run)
{
    const struct log_reader *readers[] = {&run->metrics, &run->norms, &run->events};
    for (size_t i = 0; i < 3; i++) {
        if (readers[i]->damaged > 0)
            fprintf(stderr, "warning: %s: %llu of %llu lines are damaged and left out\n", readers[i]->path,
                    (unsigned long long)readers[i]->damaged, (unsigned long long)readers[i]->lines);
        for (const char *note = readers[i]->damaged_segments; note && *note; note += strcspn(note, "\n") + 1)
            fprintf(stderr, "warning: %.*s; what cannot be read of it is left out\n", (int)strcspn(note, "\n"), note);
    }
    if (!run->has_config)
        fprintf(stderr,
                "warning: %s/config.yaml is missing or cannot be read; attention.kind is taken as standard and the "
                "number of tokens from the largest entropy\n",
                run->directory);
}
