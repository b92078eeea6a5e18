/* quest-norms export: the whole log as CSV, or the newest numbers for Prometheus' textfile collector. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/norms.h"
#include "src/norms_reading.h"

typedef unsigned long long ull;

/* ---- writing a file that is either the old or the new ---- */

struct output {
    const char *path;
    char *temporary;
    FILE *file;
};

static bool output_open(struct output *output, const char *path, struct error *error)
{
    *output = (struct output){.path = path};
    if (asprintf(&output->temporary, "%s.new", path) < 0)
        return error_runtime(error, "%s: out of memory", path);
    output->file = fopen(output->temporary, "we");
    if (output->file)
        return true;
    error_input(error, "%s: %s", output->temporary, strerror(errno));
    free(output->temporary);
    return false;
}

/* `ok`: whether what was to be written is whole. */
static bool output_close(struct output *output, bool ok, struct error *error)
{
    bool written = !ferror(output->file);
    written = fclose(output->file) == 0 && written;
    if (ok && (!written || rename(output->temporary, output->path) != 0))
        ok = error_runtime(error, "%s: cannot be written: %s", output->path, strerror(errno));
    if (!ok)
        unlink(output->temporary);
    free(output->temporary);
    return ok;
}

/* ---- CSV: one row a logged step (layer and head empty), then one a step, layer and head ---- */

static void put_csv(FILE *out, double value)
{
    if (isfinite(value))
        fprintf(out, ",%.9g", value);
    else
        putc(',', out);
}

static void put_csv_head(FILE *out, const struct norm_record *record, size_t head)
{
    const double *lists[] = {record->q_norm_mean, record->q_norm_std,   record->q_norm_min, record->q_norm_max,
                             record->k_norm_mean, record->k_norm_std,   record->k_norm_min, record->k_norm_max,
                             record->logit_max,   record->entropy_mean, record->entropy_min};
    fprintf(out, "%llu,%zu,%zu,,,,", (ull)record->step, record->layer, head);
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        put_csv(out, lists[i] ? lists[i][head] : NAN);
    put_csv(out, record->qkv_grad_norm);
    putc('\n', out);
}

static void put_csv_metrics(FILE *out, const struct norms_metrics *metrics)
{
    const double values[] = {metrics->loss, metrics->grad_norm, metrics->lr, metrics->images_per_s};
    if (metrics->evaluation)
        return;
    fprintf(out, "%llu,,", (ull)metrics->step);
    for (size_t i = 0; i < 4; i++)
        put_csv(out, values[i]);
    fputs(",,,,,,,,,,,,\n", out);
}

static bool put_csv_log(FILE *out, struct log_reader *reader, struct error *error)
{
    enum log_reader_result result;
    struct norms_metrics metrics;
    struct norm_record record;
    while ((result = log_reader_next(reader, error)) == LOG_READER_LINE) {
        if (norms_record_read(&record, &reader->line))
            for (size_t head = 0; head < record.heads; head++)
                put_csv_head(out, &record, head);
        else if (norms_metrics_read(&metrics, &reader->line))
            put_csv_metrics(out, &metrics);
        else
            reader->damaged++;
    }
    return result != LOG_READER_FAILED;
}

static bool export_csv(const struct norms_arguments *arguments, struct error *error)
{
    struct norms_run run;
    struct output output;
    bool ok = norms_run_open(&run, arguments->runs[0], error) && output_open(&output, arguments->csv, error);
    if (ok) {
        fputs("step,layer,head,loss,grad_norm,lr,images_per_s,q_norm_mean,q_norm_std,q_norm_min,q_norm_max,k_norm_mean,"
              "k_norm_std,k_norm_min,k_norm_max,logit_max,entropy_mean,entropy_min,qkv_grad_norm\n",
              output.file);
        ok = put_csv_log(output.file, &run.metrics, error) && put_csv_log(output.file, &run.norms, error);
        ok = output_close(&output, ok, error);
        norms_run_warn(&run);
    }
    norms_run_close(&run);
    return ok;
}

/* ---- Prometheus ---- */

/* The text format escapes these three in label values. */
static void put_label(FILE *out, const char *text)
{
    for (; *text; text++)
        if (*text == '\n')
            fputs("\\n", out);
        else
            fprintf(out, *text == '"' || *text == '\\' ? "\\%c" : "%c", *text);
}

static void put_family(FILE *out, const char *name, const char *type, const char *help)
{
    fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void put_value(FILE *out, double value)
{
    if (isfinite(value))
        fprintf(out, " %.15g\n", value);
    else
        fputs(" NaN\n", out);
}

static void put_single(FILE *out, const char *run, const char *name, const char *help, double value)
{
    put_family(out, name, "gauge", help);
    fprintf(out, "%s{run=\"", name);
    put_label(out, run);
    fputs("\"}", out);
    put_value(out, value);
}

static void put_heads(FILE *out, const struct norms_series *series, const char *run, size_t statistic)
{
    char name[64];
    snprintf(name, sizeof name, "quest_attention_%s", norms_head_statistics[statistic]);
    put_family(out, name, "gauge", "One head's statistic at the newest logged step (docs/logs.md).");
    for (size_t i = 0; i < series->layer_count; i++)
        for (size_t head = 0; head < series->layers[i].heads; head++) {
            fprintf(out, "%s{run=\"", name);
            put_label(out, run);
            fprintf(out, "\",layer=\"%zu\",head=\"%zu\"}", i, head);
            put_value(out, (double)series->layers[i].row[statistic * series->layers[i].heads + head]);
        }
}

static void put_events(FILE *out, const struct norms_findings *findings, const char *run)
{
    put_family(out, "quest_diagnosis_events_total", "counter", "Events of the diagnosis so far (docs/diagnosis.md).");
    for (int severity = DIAGNOSIS_INFO; severity <= DIAGNOSIS_CRITICAL; severity++) {
        size_t count = 0;
        for (size_t i = 0; i < findings->count; i++)
            count += findings->events[i].severity == (enum diagnosis_severity)severity;
        fputs("quest_diagnosis_events_total{run=\"", out);
        put_label(out, run);
        fprintf(out, "\",severity=\"%s\"} %zu\n", diagnosis_severity_name((enum diagnosis_severity)severity), count);
    }
}

static bool export_prometheus(const struct norms_arguments *arguments, struct error *error)
{
    struct norms_reading *reading;
    struct output output;
    bool ok =
        norms_readings_open(&reading, arguments->runs, 1, error) && output_open(&output, arguments->prometheus, error);
    if (ok) {
        const char *run = reading->run.name;
        const struct norms_metrics *newest = &reading->series.newest;
        put_single(output.file, run, "quest_train_step", "The newest logged step.", (double)newest->step);
        put_single(output.file, run, "quest_train_loss", "Training loss at that step.", newest->loss);
        put_single(output.file, run, "quest_train_gradient_norm", "Norm of the whole gradient.", newest->grad_norm);
        put_single(output.file, run, "quest_train_learning_rate", "Learning rate.", newest->lr);
        put_single(output.file, run, "quest_train_images_per_second", "Throughput.", newest->images_per_s);
        put_single(output.file, run, "quest_train_time_seconds", "When that step was logged, since 1970.",
                   newest->time);
        for (size_t i = 0; i < NORMS_HEAD_STATISTICS; i++)
            put_heads(output.file, &reading->series, run, i);
        put_events(output.file, &reading->findings, run);
        ok = output_close(&output, true, error);
    }
    norms_readings_close(reading, 1);
    return ok;
}

int norms_export(const struct norms_arguments *arguments)
{
    struct error error;
    bool ok = arguments->csv || arguments->prometheus ||
              error_input(&error, "nothing to write: give --csv FILE or --prometheus FILE");
    ok = ok && (!arguments->csv || export_csv(arguments, &error));
    ok = ok && (!arguments->prometheus || export_prometheus(arguments, &error));
    return ok ? 0 : norms_fail(&error);
}
