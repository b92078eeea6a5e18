/* Opens several runs and reads each whole: its findings and its series. */
#include "src/norms/reading.h"

#include <stdlib.h>
#include <string.h>

static bool read_run(struct norms_reading *reading, const char *directory, struct error *error)
{
    if (!norms_run_open(&reading->run, directory, error) ||
        !norms_findings_open(&reading->findings, &reading->run, error) || !norms_series_open(&reading->series, error) ||
        !norms_findings_read(&reading->findings, &reading->run, &reading->series, NULL, error))
        return false;
    norms_findings_sort(&reading->findings);
    norms_run_warn(&reading->run);
    return true;
}

bool norms_readings_open(struct norms_reading **readings, const char *const *directories, size_t count,
                         struct error *error)
{
    *readings = calloc(count, sizeof **readings);
    if (!*readings)
        return error_runtime(error, "out of memory");
    for (size_t i = 0; i < count; i++)
        (*readings)[i].run.metrics.file = (*readings)[i].run.norms.file = (*readings)[i].run.events.file = -1;
    for (size_t i = 0; i < count; i++)
        if (!read_run(&(*readings)[i], directories[i], error))
            return false;
    return true;
}

void norms_readings_close(struct norms_reading *readings, size_t count)
{
    for (size_t i = 0; readings && i < count; i++) {
        norms_series_close(&readings[i].series);
        norms_findings_close(&readings[i].findings);
        norms_run_close(&readings[i].run);
    }
    free(readings);
}

const char *norms_reading_name(const struct norms_reading *readings, size_t count, size_t index)
{
    for (size_t i = 0; i < count; i++)
        if (i != index && strcmp(readings[i].run.name, readings[index].run.name) == 0)
            return readings[index].run.directory;
    return readings[index].run.name;
}
