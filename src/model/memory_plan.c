/* Adds up what will be allocated and says what does not fit; cuts views out of an allocation; resident memory. */
#include "src/model/memory_plan.h"

#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define MIB 1048576.0

void memory_plan_add(struct memory_plan *plan, const char *name, size_t bytes)
{
    if (bytes == 0 || plan->count == MEMORY_PLAN_GROUPS)
        return;
    plan->groups[plan->count].name = name;
    plan->groups[plan->count++].bytes = bytes;
}

size_t memory_plan_total(const struct memory_plan *plan)
{
    size_t total = 0;
    for (size_t i = 0; i < plan->count; i++)
        total += plan->groups[i].bytes;
    return total;
}

static bool planned_for(size_t *bytes, const struct memory_wish *wish, size_t batch, struct error *error)
{
    struct memory_plan plan = {0};
    bool ok = wish->plan_for(wish->owner, batch, &plan, error);
    *bytes = memory_plan_total(&plan);
    return ok;
}

/* The largest batch below the wish's whose plan fits, which that of one image does. */
static bool largest_batch(size_t *fits, const struct memory_wish *wish, size_t available, struct error *error)
{
    size_t too_many = wish->batch, bytes;
    for (*fits = 1; *fits + 1 < too_many;) {
        size_t batch = *fits + (too_many - *fits) / 2;
        if (!planned_for(&bytes, wish, batch, error))
            return false;
        if (bytes <= available)
            *fits = batch;
        else
            too_many = batch;
    }
    return true;
}

bool memory_plan_check(const struct memory_wish *wish, size_t available, const char *where, struct error *error)
{
    size_t total = memory_plan_total(wish->plan), least, fits;
    if (total <= available)
        return true;
    if (!planned_for(&least, wish, 1, error))
        return false;
    if (least > available)
        return error_input(error,
                           "%s has %.0f MiB free, but this run needs %.0f MiB, and %.0f MiB even for one image a rank "
                           "and micro-step; take a smaller model",
                           where, (double)available / MIB, (double)total / MIB, (double)least / MIB);
    if (!largest_batch(&fits, wish, available, error))
        return false;
    return error_input(
        error,
        "%s has %.0f MiB free, but this run needs %.0f MiB (%.0f MiB more): %zu images a rank and "
        "micro-step fit, %zu a step, not %zu and %zu; lower train.batch_size, raise train.accumulate, take more ranks, "
        "or set train.recompute: true",
        where, (double)available / MIB, (double)total / MIB, (double)(total - available) / MIB, fits,
        fits * wish->batch_share, wish->batch, wish->batch * wish->batch_share);
}

void memory_plan_print(const struct memory_plan *plan, FILE *out)
{
    fprintf(out, "memory:");
    for (size_t i = 0; i < plan->count; i++)
        fprintf(out, " %s %.1f MiB,", plan->groups[i].name, (double)plan->groups[i].bytes / MIB);
    fprintf(out, " together %.1f MiB\n", (double)memory_plan_total(plan) / MIB);
}

size_t memory_resident_bytes(void)
{
    unsigned long size = 0, resident = 0;
    FILE *statm = fopen("/proc/self/statm", "r");
    if (!statm)
        return 0;
    if (fscanf(statm, "%lu %lu", &size, &resident) != 2)
        resident = 0;
    fclose(statm);
    return (size_t)resident * (size_t)sysconf(_SC_PAGESIZE);
}

size_t memory_peak_resident_bytes(void)
{
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? (size_t)usage.ru_maxrss * 1024 : 0;
}

void *memory_cut(struct memory_cutter *cutter, size_t bytes)
{
    void *view = cutter->base ? cutter->base + cutter->used : NULL;
    cutter->used += (bytes + 255) / 256 * 256;
    return view;
}
