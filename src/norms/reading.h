/* One run, read whole: what report, plot and export begin with. */
#ifndef QUEST_NORMS_READING_H
#define QUEST_NORMS_READING_H

#include "src/norms/findings.h"
#include "src/norms/series.h"

struct norms_reading {
    struct norms_run run;
    struct norms_series series;
    struct norms_findings findings;
};

/* Reads `count` runs, and warns on stderr about what was damaged. Close with norms_readings_close also on failure.
 * NULL where memory is short. */
bool norms_readings_open(struct norms_reading **readings, const char *const *directories, size_t count,
                         struct error *error);
void norms_readings_close(struct norms_reading *readings, size_t count);
/* The directory's last part, or the whole where two runs share it. */
const char *norms_reading_name(const struct norms_reading *readings, size_t count, size_t index);

#endif
