/* Tests on several ranks: the program starts itself once more under mpirun, and each rank checks what it sees. */
#ifndef QUEST_TESTS_COMM_TEST_H
#define QUEST_TESTS_COMM_TEST_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/comm/comm.h"
#include "src/comm/mpi.h"

/* ---- a rank ---- */

static int rank, size;

#define CHECK(condition)                                                                      \
    do {                                                                                      \
        if (!(condition)) {                                                                   \
            printf("rank %d of %d, %s:%d: %s\n", rank, size, __FILE__, __LINE__, #condition); \
            fflush(stdout);                                                                   \
            _exit(3);                                                                         \
        }                                                                                     \
    } while (0)

struct rank_case {
    const char *name;
    void (*function)(struct comm *comm);
};

static inline void sleep_s(double seconds)
{
    nanosleep(&(struct timespec){(time_t)seconds, (long)(1e9 * (seconds - floor(seconds)))}, NULL);
}

/* What main() does under mpirun: the case that argv[1] names. */
static inline int be_a_rank(int argc, char **argv, const struct rank_case *cases, size_t count)
{
    struct comm *comm;
    struct error error;
    CHECK(comm_open(&comm, &argc, &argv, &error));
    rank = comm_rank(comm);
    size = comm_world_size(comm);
    for (size_t i = 0; i < count; i++)
        if (strcmp(argv[1], cases[i].name) == 0)
            cases[i].function(comm);
    comm_close(comm);
    int finalized;
    CHECK(MPI_Finalized(&finalized) == MPI_SUCCESS && finalized);
    return 0;
}

/* ---- what is seen of the ranks from outside ---- */

static char output[1 << 14];

/* The job's exit status; what it printed is in `output`. */
static inline int on_ranks(int ranks, const char *name)
{
    char self[1024], command[1200];
    /* As tests/environment.sh has it, for whoever starts this by hand: more ranks than cores, and root. */
    setenv("OMPI_MCA_rmaps_base_oversubscribe", "1", 0);
    setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 0);
    setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 0);
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    assert_true(length > 0);
    self[length] = '\0';
    snprintf(command, sizeof command, "mpirun -q -np %d '%s' %s </dev/null 2>&1", ranks, self, name);
    FILE *job = popen(command, "r");
    assert_non_null(job);
    output[fread(output, 1, sizeof output - 1, job)] = '\0';
    int status = pclose(job);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static inline void goes_well_on(int least, int most, const char *name)
{
    for (int ranks = least; ranks <= most; ranks++)
        if (on_ranks(ranks, name) != 0)
            fail_msg("%s on %d ranks:\n%s", name, ranks, output);
}

static inline void expect_output(const char *expected)
{
    const char *found = strstr(output, expected);
    if (!found || strstr(found + 1, "error: "))
        fail_msg("once, and no other error: %s\n%s", expected, output);
}

#endif
