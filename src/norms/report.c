/* quest-norms report: one HTML file with the charts of one or several runs, that needs neither network nor server. */
#include <errno.h>
#include <jansson.h>
#include <libgen.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/attention_kinds.h"
#include "src/base/command_line.h"
#include "src/config/config.h"
#include "src/norms/assets.h"
#include "src/norms/norms.h"
#include "src/norms/reading.h"

/* ---- the data as JSON inside a page: '<' is written as an escape, so that no text can end the script ---- */

static void put_text(FILE *out, const char *text)
{
    json_t *string = json_string(text);
    char *dumped = string ? json_dumps(string, JSON_ENCODE_ANY | JSON_ENSURE_ASCII) : NULL;
    for (const char *at = dumped ? dumped : "\"\""; *at; at++)
        if (*at == '<')
            fputs("\\u003c", out);
        else
            putc(*at, out);
    free(dumped);
    json_decref(string);
}

static void put_column(FILE *out, const struct norms_buckets *buckets, size_t column)
{
    putc('[', out);
    for (size_t i = 0; i < buckets->count; i++) {
        float value = buckets->values[i * buckets->columns + column];
        if (i > 0)
            putc(',', out);
        if (isnan(value))
            fputs("null", out);
        else
            fprintf(out, "%.5g", (double)value);
    }
    putc(']', out);
}

static void put_steps(FILE *out, const struct norms_buckets *buckets)
{
    fputs("\"step\":[", out);
    for (size_t i = 0; i < buckets->count; i++)
        fprintf(out, "%s%llu", i > 0 ? "," : "", (unsigned long long)buckets->steps[i]);
    putc(']', out);
}

static void put_layers(FILE *out, const struct norms_series *series)
{
    bool first = true;
    for (size_t i = 0; i < series->layer_count; i++) {
        const struct norms_layer *layer = &series->layers[i];
        if (layer->heads == 0)
            continue;
        fprintf(out, "%s{\"layer\":%zu,", first ? "" : ",\n", i);
        first = false;
        put_steps(out, &layer->buckets);
        for (size_t j = 0; j < NEWEST_STATISTICS; j++) {
            fprintf(out, ",\"%s\":[", newest_statistic_names[j]);
            for (size_t head = 0; head < layer->heads; head++) {
                fputs(head > 0 ? "," : "", out);
                put_column(out, &layer->buckets, j * layer->heads + head);
            }
            putc(']', out);
        }
        fputs(",\"qkv_grad_norm\":", out);
        put_column(out, &layer->buckets, NEWEST_STATISTICS * layer->heads);
        putc('}', out);
    }
}

static void put_events(FILE *out, const struct norms_findings *findings)
{
    for (size_t i = 0; i < findings->count; i++) {
        const struct event *event = &findings->events[i];
        fprintf(out,
                "%s{\"step\":%llu,\"since\":%llu,\"kind\":\"%s\",\"severity\":\"%s\",\"layer\":", i > 0 ? ",\n" : "",
                (unsigned long long)event->step, (unsigned long long)event->since, event_kind_name(event->kind),
                severity_name(event->severity));
        fprintf(out, event->layer >= 0 ? "%ld" : "null", event->layer);
        fputs(",\"explanation\":", out);
        put_text(out, event->message);
        fputs(",\"advice\":", out);
        put_text(out, event->advice);
        putc('}', out);
    }
}

static bool put_run(FILE *out, const struct norms_reading *reported, const char *name)
{
    const struct norms_run *run = &reported->run;
    char *conclusion = norms_conclusion(&reported->findings);
    if (!conclusion)
        return false;
    fputs("{\"name\":", out);
    put_text(out, name);
    fprintf(out, ",\"kind\":\"%s\",\"result\":\"%s\",\"conclusion\":",
            run->has_config ? attention_kind_name(run->kind) : "unknown",
            severity_name(norms_findings_worst(&reported->findings)));
    put_text(out, conclusion);
    free(conclusion);
    fputs(",\"settings\":{", out);
    bool first = true;
    for (size_t i = 0; i < run->config.count; i++) {
        const struct yaml_entry *entry = &run->config.entries[i];
        if (entry->section)
            continue;
        fputs(first ? "" : ",", out);
        first = false;
        put_text(out, entry->path);
        putc(':', out);
        put_text(out, entry->value);
    }
    fputs("},\n\"metrics\":{", out);
    put_steps(out, &reported->series.metrics);
    for (size_t i = 0; i < METRICS_COLUMNS; i++) {
        fprintf(out, ",\"%s\":", norms_metrics_columns[i]);
        put_column(out, &reported->series.metrics, i);
    }
    fputs("},\n\"layers\":[", out);
    put_layers(out, &reported->series);
    fputs("],\n\"events\":[", out);
    put_events(out, &reported->findings);
    fputs("]}", out);
    return true;
}

static bool put_data(FILE *out, const struct norms_reading *runs, size_t count)
{
    bool ok = true;
    fputs("{\"runs\":[", out);
    for (size_t i = 0; ok && i < count; i++) {
        fputs(i > 0 ? ",\n" : "", out);
        ok = put_run(out, &runs[i], norms_reading_name(runs, count, i));
    }
    fputs("]}\n", out);
    return ok;
}

/* ---- the page ---- */

/* In a bundle (launch/bundle) dygraphs lies beside the programs. */
static FILE *open_bundled(const char *name)
{
    char program[400], path[512];
    ssize_t bytes = readlink("/proc/self/exe", program, sizeof program);
    if (bytes < 0 || (size_t)bytes >= sizeof program)
        return NULL;
    program[bytes] = 0;
    snprintf(path, sizeof path, "%s/../share/dygraphs/%s", dirname(program), name);
    return fopen(path, "re");
}

static bool put_library(FILE *out, const char *name, struct error *error)
{
    char path[512], block[4096];
    snprintf(path, sizeof path, "/usr/share/javascript/dygraphs/%s", name);
    FILE *file = fopen(path, "re");
    int reason = errno;
    if (!file)
        file = open_bundled(name);
    if (!file)
        return error_runtime(error, "%s: %s; the charts are drawn by dygraphs: apt-get install libjs-dygraphs", path,
                             strerror(reason));
    for (size_t bytes; (bytes = fread(block, 1, sizeof block, file)) > 0;)
        fwrite(block, 1, bytes, out);
    bool ok = !ferror(file);
    fclose(file);
    return ok || error_runtime(error, "%s: cannot be read", path);
}

static bool put_mark(FILE *out, const char *mark, size_t bytes, const struct norms_reading *runs, size_t count,
                     struct error *error)
{
    if (bytes == strlen("DYGRAPH_CSS") && memcmp(mark, "DYGRAPH_CSS", bytes) == 0)
        return put_library(out, "dygraph.min.css", error);
    if (bytes == strlen("DYGRAPH_JS") && memcmp(mark, "DYGRAPH_JS", bytes) == 0)
        return put_library(out, "dygraph.min.js", error);
    if (bytes == strlen("REPORT_JS") && memcmp(mark, "REPORT_JS", bytes) == 0)
        return fputs(norms_report_js, out) >= 0;
    return put_data(out, runs, count) || error_runtime(error, "out of memory for the report");
}

static bool put_page(FILE *out, const struct norms_reading *runs, size_t count, struct error *error)
{
    const char *at = norms_page_html;
    for (const char *mark; (mark = strstr(at, "@@")) != NULL;) {
        const char *end = strstr(mark + 2, "@@");
        fwrite(at, 1, (size_t)(mark - at), out);
        if (!put_mark(out, mark + 2, (size_t)(end - mark - 2), runs, count, error))
            return false;
        at = end + 2;
    }
    fputs(at, out);
    return true;
}

static bool write_report(const char *path, const struct norms_reading *runs, size_t count, struct error *error)
{
    char *temporary = NULL;
    if (asprintf(&temporary, "%s.new", path) < 0)
        return error_runtime(error, "%s: out of memory", path);
    FILE *out = fopen(temporary, "we");
    bool ok = out ? put_page(out, runs, count, error) : error_input(error, "%s: %s", temporary, strerror(errno));
    bool written = out && !ferror(out);
    written = out && fclose(out) == 0 && written;
    if (ok && (!written || rename(temporary, path) != 0))
        ok = error_runtime(error, "%s: cannot be written: %s", path, strerror(errno));
    if (!ok)
        unlink(temporary);
    free(temporary);
    return ok;
}

int norms_report(const void *from)
{
    const struct norms_arguments *arguments = from;
    struct error error;
    struct norms_reading *runs = NULL;
    bool ok = arguments->out || error_input(&error, "--out FILE.html is missing: where shall the report go?");
    ok = ok && norms_readings_open(&runs, arguments->runs, arguments->run_count, &error) &&
         write_report(arguments->out, runs, arguments->run_count, &error);
    norms_readings_close(runs, arguments->run_count);
    return ok ? 0 : command_line_fail(&error);
}
