/* quest-norms plot: one statistic over the steps as PNG, SVG or PDF, drawn by gnuplot. */
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "src/base/command_line.h"
#include "src/norms/field.h"
#include "src/norms/norms.h"
#include "src/norms/reading.h"

/* What is asked for, with names turned into columns. */
struct plot {
    bool logarithmic;
    bool of_model;    /* a column of the metrics, not of a layer */
    bool of_logs;     /* none of the known statistics: a field of the logs by its name */
    size_t statistic; /* NEWEST_STATISTICS: qkv_grad_norm */
    long layer, head; /* -1: all */
    const char *name;
};

static const char *terminal_of(const char *path)
{
    const char *dot = strrchr(path, '.');
    if (dot && strcmp(dot, ".png") == 0)
        return "pngcairo size 1200,675";
    if (dot && strcmp(dot, ".svg") == 0)
        return "svg size 1200,675 dynamic";
    return dot && strcmp(dot, ".pdf") == 0 ? "pdfcairo size 8in,4.5in" : NULL;
}

static bool find_name(size_t *index, const char *name, const char *const *names, size_t count)
{
    for (*index = 0; *index < count; (*index)++)
        if (strcmp(names[*index], name) == 0)
            return true;
    return false;
}

static bool read_index(long *index, const char *text, const char *option, struct error *error)
{
    char *end;
    *index = -1;
    if (!text)
        return true;
    *index = strtol(text, &end, 10);
    return (*text >= '0' && *text <= '9' && *end == '\0') ||
           error_input(error, "%s: '%s' is not a whole number from 0", option, text);
}

static bool choose(struct plot *plot, const struct norms_arguments *arguments, struct error *error)
{
    *plot = (struct plot){.logarithmic = arguments->logarithmic,
                          .name = arguments->statistic ? arguments->statistic : "logit_max"};
    plot->of_model = find_name(&plot->statistic, plot->name, norms_metrics_columns, METRICS_COLUMNS);
    plot->of_logs = !plot->of_model &&
                    !find_name(&plot->statistic, plot->name, newest_statistic_names, NEWEST_STATISTICS) &&
                    strcmp(plot->name, "qkv_grad_norm") != 0;
    if (!arguments->out || !terminal_of(arguments->out))
        return error_input(error, "--out FILE is missing, or does not end in .png, .svg or .pdf");
    return read_index(&plot->layer, arguments->layer, "--layer", error) &&
           read_index(&plot->head, arguments->head, "--head", error);
}

/* In single quotes of gnuplot, where only the quote itself is special. */
static void put_quoted(FILE *out, const char *text)
{
    putc('\'', out);
    for (; *text; text++)
        if (*text == '\'')
            fputs("''", out);
        else
            putc(*text == '\n' ? ' ' : *text, out);
    putc('\'', out);
}

/* ---- curves: a data block each, and its part of the plot command ---- */

struct curves {
    FILE *out, *command; /* command: what comes after "plot" */
    size_t count;
};

static void put_curve(struct curves *curves, const struct norms_buckets *buckets, size_t column, const char *title)
{
    fprintf(curves->out, "$data%zu << EOD\n", curves->count);
    for (size_t i = 0; i < buckets->count; i++) {
        double value = (double)buckets->values[i * buckets->columns + column];
        if (isfinite(value))
            fprintf(curves->out, "%llu %.9g\n", (unsigned long long)buckets->steps[i], value);
    }
    fputs("EOD\n", curves->out);
    fprintf(curves->command, "%s$data%zu using 1:2 with lines linewidth 1.5 title ", curves->count > 0 ? ", " : "",
            curves->count);
    put_quoted(curves->command, title);
    curves->count++;
}

/* A run of one head in one layer needs no telling apart. */
static void put_head(struct curves *curves, const struct norms_buckets *buckets, size_t column, const char *run,
                     size_t layer, size_t head, bool only_one)
{
    char title[256];
    if (only_one)
        snprintf(title, sizeof title, "%s", run);
    else
        snprintf(title, sizeof title, "%s, layer %zu, head %zu", run, layer, head);
    put_curve(curves, buckets, column, title);
}

static void put_layer(struct curves *curves, const struct plot *plot, const struct norms_layer *layer, size_t index,
                      const char *run, bool only_one)
{
    char title[256];
    if (plot->statistic == NEWEST_STATISTICS) {
        snprintf(title, sizeof title, "%s, layer %zu", run, index);
        put_curve(curves, &layer->buckets, NEWEST_STATISTICS * layer->heads, title);
        return;
    }
    for (size_t head = 0; head < layer->heads; head++) {
        if (plot->head >= 0 && (size_t)plot->head != head)
            continue;
        put_head(curves, &layer->buckets, plot->statistic * layer->heads + head, run, index, head, only_one);
    }
}

static void put_run(struct curves *curves, const struct plot *plot, const struct norms_series *series, const char *name)
{
    if (plot->of_model && series->metrics.count > 0)
        put_curve(curves, &series->metrics, plot->statistic, name);
    for (size_t i = 0; !plot->of_model && i < series->layer_count; i++)
        if (series->layers[i].heads > 0 && (plot->layer < 0 || (size_t)plot->layer == i))
            put_layer(curves, plot, &series->layers[i], i, name,
                      series->layer_count == 1 && series->layers[i].heads == 1);
}

/* A field that is read by its name. */
static bool put_field(struct curves *curves, const struct plot *plot, const struct norms_run *run, const char *name,
                      struct error *error)
{
    struct norms_field field;
    bool ok = norms_field_read(&field, run, plot->name, error);
    if (ok && field.model.count > 0)
        put_curve(curves, &field.model, 0, name);
    for (size_t i = 0; ok && i < field.layer_count; i++)
        for (size_t head = 0; head < field.layers[i].columns; head++) {
            if ((plot->layer >= 0 && (size_t)plot->layer != i) || (plot->head >= 0 && (size_t)plot->head != head))
                continue;
            put_head(curves, &field.layers[i], head, name, i, head,
                     field.layer_count == 1 && field.layers[i].columns == 1);
        }
    norms_field_close(&field);
    return ok;
}

/* The whole gnuplot program as text; NULL where *error says why. */
static char *program(const struct plot *plot, const struct norms_reading *readings, size_t count, const char *out_path,
                     const char *path, size_t *curve_count, struct error *error)
{
    bool ok = true;
    char *text = NULL, *command = NULL;
    size_t bytes, command_bytes;
    struct curves curves = {.out = open_memstream(&text, &bytes), .command = open_memstream(&command, &command_bytes)};
    if (curves.out && curves.command) {
        fprintf(curves.out, "set terminal %s noenhanced\nset output ", terminal_of(path));
        put_quoted(curves.out, out_path);
        fprintf(curves.out, "\nset xlabel 'step'\nset ylabel '%s'\nset grid\n%s", plot->name,
                plot->logarithmic ? "set logscale y\n" : "");
        for (size_t i = 0; ok && i < count; i++)
            if (plot->of_logs)
                ok = put_field(&curves, plot, &readings[i].run, norms_reading_name(readings, count, i), error);
            else
                put_run(&curves, plot, &readings[i].series, norms_reading_name(readings, count, i));
    }
    bool whole = curves.command && fclose(curves.command) == 0;
    if (whole && curves.out) /* a few titles fit below; many would leave the curves no room there */
        fprintf(curves.out, "set key %s\nplot %s\n", curves.count <= NORMS_RUNS_MAX ? "below" : "outside right top",
                command);
    whole = curves.out && fclose(curves.out) == 0 && whole;
    free(command);
    *curve_count = curves.count;
    if (ok && whole)
        return text;
    if (ok)
        error_runtime(error, "out of memory");
    free(text);
    return NULL;
}

static bool run_gnuplot(const char *text, struct error *error)
{
    signal(SIGPIPE, SIG_IGN); /* a gnuplot that is not there is an exit status, not a signal */
    FILE *gnuplot = popen("gnuplot", "we");
    if (!gnuplot)
        return error_runtime(error, "gnuplot cannot be started");
    bool written = fputs(text, gnuplot) >= 0;
    int status = pclose(gnuplot);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
        return error_runtime(error, "gnuplot is not installed: apt-get install gnuplot-nox");
    return (written && status == 0) || error_runtime(error, "gnuplot failed; what it said stands above");
}

static bool draw(const struct plot *plot, const struct norms_reading *readings, size_t count, const char *path,
                 struct error *error)
{
    char *temporary = NULL;
    size_t curves;
    if (asprintf(&temporary, "%s.new", path) < 0)
        return error_runtime(error, "%s: out of memory", path);
    char *text = program(plot, readings, count, temporary, path, &curves, error);
    bool ok = text && (curves > 0 || error_input(error, "the log holds no %s for this layer and head", plot->name));
    ok = ok && run_gnuplot(text, error);
    if (ok && rename(temporary, path) != 0)
        ok = error_runtime(error, "%s: cannot be written", path);
    if (!ok)
        unlink(temporary);
    free(text);
    free(temporary);
    return ok;
}

int norms_plot(const void *from)
{
    const struct norms_arguments *arguments = from;
    struct error error;
    struct plot plot;
    struct norms_reading *readings = NULL;
    bool ok = choose(&plot, arguments, &error) &&
              norms_readings_open(&readings, arguments->runs, arguments->run_count, &error) &&
              draw(&plot, readings, arguments->run_count, arguments->out, &error);
    norms_readings_close(readings, arguments->run_count);
    return ok ? 0 : command_line_fail(&error);
}
