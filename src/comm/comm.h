/* Ranks and what they say to each other over MPI. The sum of the gradients is in gradient.h. */
#ifndef QUEST_COMM_COMM_H
#define QUEST_COMM_COMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "src/base/error.h"

struct comm;

/* MPI_Init; works without mpirun too (one rank). One struct a process. */
bool comm_open(struct comm **comm, int *argc, char ***argv, struct error *error);
void comm_close(struct comm *comm);
int comm_rank(const struct comm *comm);
int comm_world_size(const struct comm *comm);
int comm_local_rank(const struct comm *comm);
int comm_local_size(const struct comm *comm);
const char *comm_host(const struct comm *comm);

/* Collective: every rank calls it with its own outcome. Where all succeeded returns true; otherwise false on every
 * rank, and the error of the lowest failing rank is in everybody's `error` (prefixed with rank and host where it is
 * not rank 0's, which acts for all, nor everybody's). This is how one bad rank ends the job with one message. */
bool comm_agree(struct comm *comm, bool ok, struct error *error);
/* Ends the process: of a shared error rank 0 prints it; a rank that is alone with its error prints it and aborts the
 * job. Never returns. */
_Noreturn void comm_exit(struct comm *comm, const struct error *error);

enum comm_operation { COMM_SUM, COMM_MIN, COMM_MAX };
bool comm_reduce(struct comm *comm, double *values, size_t count, enum comm_operation operation, struct error *error);
bool comm_broadcast(struct comm *comm, void *bytes, size_t count, int root, struct error *error);
/* Concatenates everybody's bytes on rank 0; counts [world_size]. */
bool comm_gather(struct comm *comm, void *all, const size_t *counts, const void *mine, size_t count,
                 struct error *error);

/* Whether any rank raised its flag, without holding up the step: begin starts the question, end (which every rank calls
 * at the same step) takes the answer. */
bool comm_any_begin(struct comm *comm, bool flag, struct error *error);
bool comm_any_end(struct comm *comm, bool *any, struct error *error);

/* While a rank waits for the others in comm_reduce or comm_any_end it calls what was added here, so that other work
 * that needs the ranks' calls goes on (src/comm/gradient.h); false with an error ends the wait. The caller owns the
 * node. */
struct comm_waiting {
    bool (*function)(void *owner, struct error *error);
    void *owner;
    struct comm_waiting *next; /* comm's own */
};
void comm_while_waiting(struct comm *comm, struct comm_waiting *waiting);
void comm_no_longer_while_waiting(struct comm *comm, struct comm_waiting *waiting);
/* How long such a wait may take before it is an error that names the rank which keeps silent; 0, as at first: for ever.
 */
void comm_set_timeout(struct comm *comm, double timeout_s);

/* Fills `error` after a collective that did not end in time: which rank is silent, or that all wait; false. `what`:
 * "the gradient all-reduce of step 7"; `where` a silent rank stopped: "in the gradient all-reduce of step 7". */
bool comm_timed_out(struct comm *comm, const char *what, const char *where, double timeout_s, struct error *error);
/* Ranks that wait tell each other so for a few seconds; writes the first rank that kept silent to *rank, or -1 where
 * all are waiting (the network, then, not a rank). */
bool comm_find_silent_rank(struct comm *comm, int *rank, struct error *error);
/* Name of the host that a rank runs on. */
const char *comm_host_of(const struct comm *comm, int rank);

#endif
