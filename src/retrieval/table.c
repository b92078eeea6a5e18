/* quest-retrieval table: counts the results under --out and prints them beside the published figures. */
#include "src/retrieval/table.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/files/file_output.h"
#include "src/retrieval/config.h"
#include "src/retrieval/result.h"

enum { COLUMN = 22, THRESHOLDS = 2 };
static const double thresholds[THRESHOLDS] = {0.90, 0.95};

/* The order of the columns, and what others have measured of 72 runs a kind: the paper in a setting of its own that is
 * not published whole, PyTorch 1.13 (float32) on the same specification (docs/experiments.md). */
static const struct column {
    enum retrieval_kind kind;
    const char *paper;
} columns[RETRIEVAL_KINDS] = {{RETRIEVAL_QUEST, "58 %"},
                              {RETRIEVAL_QNORM, "49 %"},
                              {RETRIEVAL_STANDARD, "25 %"},
                              {RETRIEVAL_QKNORM_UNIT, "about 0 %"}};
static const struct {
    const char *specification;
    unsigned successes[THRESHOLDS][RETRIEVAL_KINDS]; /* in the order of the columns */
} pytorch[] = {{"A", {{33, 30, 15, 0}, {31, 7, 7, 0}}}, {"B", {{48, 27, 18, 22}, {43, 8, 2, 20}}}};
enum { PYTORCH_RUNS = 72 };

struct results {
    struct retrieval_result *of;
    size_t count, unfinished;
};

/* ---- reading ---- */

static bool add_directory(struct results *results, const char *out, const char *name, struct error *error)
{
    bool found = false;
    char *directory = file_path(out, name);
    struct retrieval_result *grown = realloc(results->of, (results->count + 1) * sizeof *grown);
    results->of = grown ? grown : results->of;
    bool ok = directory && grown ? retrieval_result_read(&grown[results->count], &found, directory, error)
                                 : error_runtime(error, "%s: out of memory", out);
    free(directory);
    results->count += found;
    results->unfinished += !found;
    return ok;
}

static bool read_results(struct results *results, const char *out, struct error *error)
{
    DIR *directory = opendir(out);
    if (!directory)
        return error_input(error, "%s: %s", out, strerror(errno));
    bool ok = true;
    for (struct dirent *entry; ok && (entry = readdir(directory));)
        if (strstr(entry->d_name, "_seed") && entry->d_name[0] != '.')
            ok = add_directory(results, out, entry->d_name, error);
    closedir(directory);
    return ok;
}

/* By specification, then seed. */
static int compare(const void *left, const void *right)
{
    const struct retrieval_result *a = left, *b = right;
    int order = strcmp(a->specification, b->specification);
    return order ? order : (a->seed > b->seed) - (a->seed < b->seed);
}

/* ---- printing: the results of one specification ---- */

/* A number of bytes is not a number of columns only where a text is not ASCII; all of ours are. */
static void put_row(const char *title, const char cells[RETRIEVAL_KINDS][64], const char *note)
{
    printf("%-18s", title);
    for (size_t i = 0; i < RETRIEVAL_KINDS; i++)
        printf("%-*s", COLUMN, cells[i]);
    printf("%s\n", note);
}

static bool of_kind(const struct retrieval_result *result, const struct column *column)
{
    return strcmp(result->kind, retrieval_kind_name(column->kind)) == 0;
}

static void count_cell(char cell[64], const struct results *results, const struct column *column, double threshold)
{
    size_t runs = 0, successes = 0;
    for (size_t i = 0; i < results->count; i++)
        if (of_kind(&results->of[i], column)) {
            runs++;
            successes += retrieval_succeeded(&results->of[i], threshold);
        }
    snprintf(cell, 64, runs ? "%zu of %zu: %.0f %%" : "-", successes, runs, 100 * (double)successes / (double)runs);
}

/* The successes of each seed, in the order of the seeds. */
static void seeds_cell(char cell[64], const struct results *results, const struct column *column, double threshold)
{
    size_t used = 0;
    cell[0] = '\0';
    for (size_t i = 0; i < results->count;) {
        size_t runs = 0, successes = 0;
        uint64_t seed = results->of[i].seed;
        for (; i < results->count && results->of[i].seed == seed; i++)
            if (of_kind(&results->of[i], column)) {
                runs++;
                successes += retrieval_succeeded(&results->of[i], threshold);
            }
        if (runs > 0 && used < 48)
            used += (size_t)snprintf(cell + used, 64 - used, "%zu ", successes);
    }
}

static void best_cell(char cell[64], const struct results *results, const struct column *column)
{
    double best = -1;
    for (size_t i = 0; i < results->count; i++)
        if (of_kind(&results->of[i], column))
            best = fmax(best, results->of[i].accuracy_unbiased);
    snprintf(cell, 64, best < 0 ? "-" : "%.1f %%", 100 * best);
}

static void put_pytorch(const char *specification, size_t threshold)
{
    char cells[RETRIEVAL_KINDS][64];
    for (size_t i = 0; i < sizeof pytorch / sizeof *pytorch; i++) {
        if (strcmp(pytorch[i].specification, specification) != 0)
            continue;
        for (size_t j = 0; j < RETRIEVAL_KINDS; j++) {
            unsigned successes = pytorch[i].successes[threshold][j];
            snprintf(cells[j], sizeof cells[j], "%u of %d: %.0f %%", successes, PYTORCH_RUNS,
                     100.0 * successes / PYTORCH_RUNS);
        }
        put_row("  PyTorch", cells, "other random numbers");
    }
}

static void put_specification(const struct results *results)
{
    const char *specification = results->of[0].specification;
    char cells[RETRIEVAL_KINDS][64], title[64];
    for (size_t threshold = 0; threshold < THRESHOLDS; threshold++) {
        snprintf(title, sizeof title, "%s, > %.0f %%", specification, 100 * thresholds[threshold]);
        for (size_t i = 0; i < RETRIEVAL_KINDS; i++)
            count_cell(cells[i], results, &columns[i], thresholds[threshold]);
        put_row(title, cells, "");
        for (size_t i = 0; i < RETRIEVAL_KINDS; i++)
            seeds_cell(cells[i], results, &columns[i], thresholds[threshold]);
        put_row("  seed by seed", cells, "");
        put_pytorch(specification, threshold);
    }
    for (size_t i = 0; i < RETRIEVAL_KINDS; i++)
        best_cell(cells[i], results, &columns[i]);
    put_row("  best, unbiased", cells, "chance is 6.2 %");
}

static void put_all(const struct results *results, const char *out)
{
    char cells[RETRIEVAL_KINDS][64];
    double cpu_s = 0;
    uint64_t skipped = 0;
    for (size_t i = 0; i < results->count; i++) {
        cpu_s += results->of[i].cpu_s;
        skipped += results->of[i].skipped_updates;
    }
    printf("\nRuns of %s in which more than 90 (95) %% of the unbiased and of the biased test samples were right:\n\n",
           out);
    for (size_t i = 0; i < RETRIEVAL_KINDS; i++)
        snprintf(cells[i], sizeof cells[i], "%s", retrieval_kind_name(columns[i].kind));
    put_row("", cells, "");
    for (size_t i = 0; i < RETRIEVAL_KINDS; i++)
        snprintf(cells[i], sizeof cells[i], "%s", columns[i].paper);
    put_row("the paper", cells, "its own setting");
    for (size_t i = 0, begin = 0; i < results->count; i++)
        if (i + 1 == results->count || strcmp(results->of[i + 1].specification, results->of[i].specification) != 0) {
            put_specification(&(struct results){results->of + begin, i + 1 - begin, 0});
            begin = i + 1;
        }
    printf("\n%zu runs, %.2f s of one core each (%.0f s in all)", results->count, cpu_s / (double)results->count,
           cpu_s);
    if (skipped > 0)
        printf("; %llu updates left out, whose gradient was not finite", (unsigned long long)skipped);
    if (results->unfinished > 0)
        printf("; %zu runs are not finished", results->unfinished);
    printf("\n");
}

bool retrieval_table_print(const char *out, struct error *error)
{
    struct results results = {0};
    bool ok = read_results(&results, out, error);
    if (ok && results.count == 0)
        ok = error_input(error, "%s: holds no finished run of the retrieval experiment", out);
    if (ok) {
        qsort(results.of, results.count, sizeof *results.of, compare);
        put_all(&results, out);
    }
    free(results.of);
    return ok;
}
