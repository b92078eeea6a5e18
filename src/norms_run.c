#include "src/norms_run.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "src/config.h"
#include "src/file_output.h"
#include "src/log_segments.h"
#include "src/norm_lists.h"

enum { LAYERS_MAX = 4096, HEADS_MAX = 4096 };

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

/* ---- lines ---- */

/* A whole number from 0 to `most`. */
static bool whole(const struct log_line *line, const char *key, double most, uint64_t *value)
{
    double number = log_line_number(line, key);
    if (!(number >= 0) || number > most || number != floor(number))
        return false;
    *value = (uint64_t)number;
    return true;
}

bool norms_metrics_read(struct norms_metrics *metrics, const struct log_line *line)
{
    *metrics = (struct norms_metrics){
        .evaluation = log_line_text(line, "split") != NULL,
        .complete = log_line_has(line, "loss") && log_line_has(line, "grad_norm"),
        .epoch = log_line_number(line, "epoch"),
        .loss = log_line_number(line, "loss"),
        .lr = log_line_number(line, "lr"),
        .grad_norm = log_line_number(line, "grad_norm"),
        .top1 = log_line_number(line, "top1"),
        .top5 = log_line_number(line, "top5"),
        .images_per_s = log_line_number(line, "images_per_s"),
        .step_time_s = log_line_number(line, "step_time_s"),
        .data_wait_s = log_line_number(line, "data_wait_s"),
        .comm_wait_s = log_line_number(line, "comm_wait_s"),
        .time = log_line_number(line, "time"),
        .mfu = log_line_number(line, "mfu"),
        .skipped_images = log_line_number(line, "skipped_images"),
    };
    return whole(line, "step", 0x1p53, &metrics->step);
}

static const double *list(const struct log_line *line, const char *key, size_t *heads)
{
    size_t count = 0;
    const double *values = log_line_list(line, key, &count);
    if (!values || count == 0 || count > HEADS_MAX)
        return NULL;
    if (*heads == 0)
        *heads = count;
    return count == *heads ? values : NULL;
}

bool norms_record_read(struct norm_record *record, const struct log_line *line)
{
    uint64_t layer;
    *record = (struct norm_record){0};
    if (!whole(line, "step", 0x1p53, &record->step) || !whole(line, "layer", LAYERS_MAX - 1, &layer))
        return false;
    record->layer = (size_t)layer;
    (void)list(line, "logit_max", &record->heads); /* where lists disagree about the heads, this one counts */
    for (size_t i = 0; i < NORM_LISTS; i++)
        norm_record_set_list(record, i, list(line, norm_lists[i].name, &record->heads));
    record->qkv_grad_norm = log_line_number(line, "qkv_grad_norm");
    return record->heads > 0;
}

static long place(const struct log_line *line, const char *key)
{
    uint64_t value;
    return whole(line, key, 1e9, &value) ? (long)value : -1;
}

bool norms_event_read(struct norms_event *event, const struct log_line *line)
{
    const char *kind = log_line_text(line, "kind"), *severity = log_line_text(line, "severity");
    const char *message = log_line_text(line, "message");
    *event = (struct norms_event){
        .layer = place(line, "layer"),
        .head = place(line, "head"),
        .value = log_line_number(line, "value"),
        .threshold = log_line_number(line, "threshold"),
    };
    if (!whole(line, "step", 0x1p53, &event->step) || !kind)
        return false;
    if (!whole(line, "since", 0x1p53, &event->since))
        event->since = event->step;
    snprintf(event->kind, sizeof event->kind, "%s", kind);
    snprintf(event->severity, sizeof event->severity, "%s", severity ? severity : "info");
    snprintf(event->message, sizeof event->message, "%s", message ? message : "");
    return true;
}
