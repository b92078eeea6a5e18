/* MPI started, asked and ended: control messages, agreement on errors, and waits that notice a rank that is lost. */
#include "src/comm/comm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "src/base/clock.h"
#include "src/comm/mpi.h"

#define HOST_BYTES  64
#define TAG_WAITING 7 /* "I wait for somebody": see comm_find_silent_rank */

struct comm {
    MPI_Comm world; /* our own: a user's library may use MPI_COMM_WORLD */
    int rank, size, local_rank, local_size;
    char (*hosts)[HOST_BYTES]; /* [size] */
    int any_flag, any_answer;  /* of the question under way */
    MPI_Request any_request;
    struct comm_waiting *waiting; /* what goes on while this rank waits */
    double timeout_s;             /* of such a wait; 0: none */
    bool rank_lost; /* somebody no longer answers: nothing collective may follow, MPI_Finalize least of all */
};

/* One line for a failed MPI call. */
static bool mpi_ok(int code, const char *call, struct error *error)
{
    char text[MPI_MAX_ERROR_STRING];
    int length = 0;
    if (code == MPI_SUCCESS)
        return true;
    if (MPI_Error_string(code, text, &length) != MPI_SUCCESS)
        snprintf(text, sizeof text, "error %d", code);
    return error_runtime(error, "%s failed: %s", call, text);
}

static bool find_neighbours(struct comm *comm, struct error *error)
{
    MPI_Comm local;
    char host[HOST_BYTES] = "";
    gethostname(host, sizeof host - 1);
    comm->hosts = calloc((size_t)comm->size, HOST_BYTES);
    if (!comm->hosts)
        return error_runtime(error, "out of memory for the list of hosts");
    return mpi_ok(MPI_Allgather(host, HOST_BYTES, MPI_CHAR, comm->hosts, HOST_BYTES, MPI_CHAR, comm->world),
                  "MPI_Allgather of host names", error) &&
           mpi_ok(MPI_Comm_split_type(comm->world, MPI_COMM_TYPE_SHARED, comm->rank, MPI_INFO_NULL, &local),
                  "MPI_Comm_split_type", error) &&
           mpi_ok(MPI_Comm_rank(local, &comm->local_rank), "MPI_Comm_rank", error) &&
           mpi_ok(MPI_Comm_size(local, &comm->local_size), "MPI_Comm_size", error) &&
           mpi_ok(MPI_Comm_free(&local), "MPI_Comm_free", error);
}

bool comm_open(struct comm **out, int *argc, char ***argv, struct error *error)
{
    int provided;
    struct comm *comm = calloc(1, sizeof *comm);
    *out = comm;
    if (!comm)
        return error_runtime(error, "out of memory");
    if (MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS || provided < MPI_THREAD_FUNNELED)
        return error_runtime(error, "MPI could not be started with support for threads");
    return mpi_ok(MPI_Comm_dup(MPI_COMM_WORLD, &comm->world), "MPI_Comm_dup", error) &&
           mpi_ok(MPI_Comm_set_errhandler(comm->world, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler", error) &&
           mpi_ok(MPI_Comm_rank(comm->world, &comm->rank), "MPI_Comm_rank", error) &&
           mpi_ok(MPI_Comm_size(comm->world, &comm->size), "MPI_Comm_size", error) && find_neighbours(comm, error);
}

void comm_close(struct comm *comm)
{
    if (!comm)
        return;
    MPI_Comm_free(&comm->world);
    MPI_Finalize();
    free(comm->hosts);
    free(comm);
}

int comm_rank(const struct comm *comm)
{
    return comm->rank;
}

int comm_world_size(const struct comm *comm)
{
    return comm->size;
}

int comm_local_rank(const struct comm *comm)
{
    return comm->local_rank;
}

int comm_local_size(const struct comm *comm)
{
    return comm->local_size;
}

const char *comm_host(const struct comm *comm)
{
    return comm->hosts[comm->rank];
}

const char *comm_host_of(const struct comm *comm, int rank)
{
    return comm->hosts[rank];
}

MPI_Comm comm_mpi(const struct comm *comm)
{
    return comm->world;
}

bool comm_agree(struct comm *comm, bool ok, struct error *error)
{
    int mine = ok ? comm->size : comm->rank, first_bad, bad_count, is_bad = !ok;
    struct error ignored;
    if (!mpi_ok(MPI_Allreduce(&mine, &first_bad, 1, MPI_INT, MPI_MIN, comm->world), "MPI_Allreduce", &ignored) ||
        !mpi_ok(MPI_Allreduce(&is_bad, &bad_count, 1, MPI_INT, MPI_SUM, comm->world), "MPI_Allreduce", &ignored))
        return ok ? error_runtime(error, "%s", ignored.message) : false;
    if (first_bad == comm->size)
        return true;
    MPI_Bcast(error, sizeof *error, MPI_BYTE, first_bad, comm->world);
    error->shared = true;
    /* A mistake that every rank sees (a wrong key, a missing file) belongs to none of them; rank 0 acts for all. */
    if (bad_count < comm->size && first_bad != 0)
        error_prefix(error, "rank %d (%s)", first_bad, comm->hosts[first_bad]);
    return false;
}

_Noreturn void comm_exit(struct comm *comm, const struct error *error)
{
    int status = error->status == ERROR_NONE ? ERROR_RUNTIME : (int)error->status;
    if (!comm || !comm->hosts) {
        fprintf(stderr, "error: %s\n", error->message);
        exit(status);
    }
    if ((!error->shared || comm->rank_lost) && comm->size > 1) { /* MPI_Abort adds lines of its own */
        fprintf(stderr, "error: rank %d (%s): %s\n", comm->rank, comm_host(comm), error->message);
        fflush(NULL);
        MPI_Abort(comm->world, status);
        _exit(status);
    }
    if (comm->rank == 0)
        fprintf(stderr, "error: %s\n", error->message);
    fflush(NULL);
    MPI_Finalize();
    exit(status);
}

void comm_set_timeout(struct comm *comm, double timeout_s)
{
    comm->timeout_s = timeout_s;
}

void comm_while_waiting(struct comm *comm, struct comm_waiting *waiting)
{
    waiting->next = comm->waiting;
    comm->waiting = waiting;
}

void comm_no_longer_while_waiting(struct comm *comm, struct comm_waiting *waiting)
{
    for (struct comm_waiting **at = &comm->waiting; *at; at = &(*at)->next)
        if (*at == waiting) {
            *at = waiting->next;
            return;
        }
}

static bool meanwhile(struct comm *comm, struct error *error)
{
    for (struct comm_waiting *waiting = comm->waiting; waiting; waiting = waiting->next)
        if (!waiting->function(waiting->owner, error))
            return false;
    return true;
}

/* Polled rather than waited for: while training this is where a rank notices that another one hangs, or that its own
 * gradient reduction has failed. */
static bool wait_for(struct comm *comm, MPI_Request *request, struct error *error)
{
    double deadline = clock_s() + comm->timeout_s;
    int done = 0;
    for (unsigned turn = 0;; turn++) {
        if (!mpi_ok(MPI_Test(request, &done, MPI_STATUS_IGNORE), "MPI_Test", error))
            return false;
        if (done)
            return true;
        if (turn < 1000)
            continue;
        bool in_time = comm->timeout_s == 0 || clock_s() <= deadline;
        if (!meanwhile(comm, error) ||
            (!in_time && !comm_timed_out(comm, "a sum over the ranks", "between two steps", comm->timeout_s, error))) {
            comm->rank_lost = true;
            return false;
        }
        nanosleep(&(struct timespec){0, 100000}, NULL);
    }
}

bool comm_reduce(struct comm *comm, double *values, size_t count, enum comm_operation operation, struct error *error)
{
    MPI_Op op = operation == COMM_SUM ? MPI_SUM : operation == COMM_MIN ? MPI_MIN : MPI_MAX;
    MPI_Request request;
    return mpi_ok(MPI_Iallreduce(MPI_IN_PLACE, values, (int)count, MPI_DOUBLE, op, comm->world, &request),
                  "MPI_Iallreduce", error) &&
           wait_for(comm, &request, error);
}

bool comm_broadcast(struct comm *comm, void *bytes, size_t count, int root, struct error *error)
{
    const size_t most = 1u << 30; /* MPI counts are int */
    for (size_t done = 0; done < count; done += most) {
        size_t now = count - done < most ? count - done : most;
        if (!mpi_ok(MPI_Bcast((char *)bytes + done, (int)now, MPI_BYTE, root, comm->world), "MPI_Bcast", error))
            return false;
    }
    return true;
}

bool comm_gather(struct comm *comm, void *all, const size_t *counts, const void *mine, size_t count,
                 struct error *error)
{
    const int tag = 8;
    const size_t most = 1u << 30;
    if (comm->rank != 0) {
        for (size_t done = 0; done < count; done += most) {
            size_t now = count - done < most ? count - done : most;
            if (!mpi_ok(MPI_Send((const char *)mine + done, (int)now, MPI_BYTE, 0, tag, comm->world), "MPI_Send",
                        error))
                return false;
        }
        return true;
    }
    char *to = all;
    memcpy(to, mine, counts[0]);
    to += counts[0];
    for (int rank = 1; rank < comm->size; to += counts[rank++])
        for (size_t done = 0; done < counts[rank]; done += most) {
            size_t now = counts[rank] - done < most ? counts[rank] - done : most;
            if (!mpi_ok(MPI_Recv(to + done, (int)now, MPI_BYTE, rank, tag, comm->world, MPI_STATUS_IGNORE), "MPI_Recv",
                        error))
                return false;
        }
    return true;
}

bool comm_any_begin(struct comm *comm, bool flag, struct error *error)
{
    comm->any_flag = flag;
    return mpi_ok(
        MPI_Iallreduce(&comm->any_flag, &comm->any_answer, 1, MPI_INT, MPI_MAX, comm->world, &comm->any_request),
        "MPI_Iallreduce", error);
}

bool comm_any_end(struct comm *comm, bool *any, struct error *error)
{
    if (!wait_for(comm, &comm->any_request, error))
        return false;
    *any = comm->any_answer != 0;
    return true;
}

bool comm_find_silent_rank(struct comm *comm, int *silent, struct error *error)
{
    const double listen_s = 3.0;
    char *heard = calloc((size_t)comm->size, 1);
    if (!heard)
        return error_runtime(error, "out of memory");
    heard[comm->rank] = 1;
    for (int rank = 0; rank < comm->size; rank++) {
        MPI_Request request;
        if (rank != comm->rank && MPI_Isend(NULL, 0, MPI_BYTE, rank, TAG_WAITING, comm->world, &request) == MPI_SUCCESS)
            MPI_Request_free(&request);
    }
    for (double end = clock_s() + listen_s; clock_s() < end;) {
        int flag = 0;
        MPI_Status status;
        if (MPI_Iprobe(MPI_ANY_SOURCE, TAG_WAITING, comm->world, &flag, &status) == MPI_SUCCESS && flag) {
            MPI_Recv(NULL, 0, MPI_BYTE, status.MPI_SOURCE, TAG_WAITING, comm->world, MPI_STATUS_IGNORE);
            heard[status.MPI_SOURCE] = 1;
        } else {
            nanosleep(&(struct timespec){0, 1000000}, NULL);
        }
    }
    *silent = -1;
    for (int rank = comm->size; rank-- > 0;)
        if (!heard[rank])
            *silent = rank;
    free(heard);
    return true;
}

bool comm_timed_out(struct comm *comm, const char *what, const char *where, double timeout_s, struct error *error)
{
    int silent;
    if (!comm_find_silent_rank(comm, &silent, error))
        return false;
    if (silent < 0)
        return error_runtime(
            error,
            "%s took longer than comm.timeout_s = %g s though every rank is waiting in it; look at the "
            "network between the hosts",
            what, timeout_s);
    return error_runtime(error, "rank %d (%s) stopped answering %s (comm.timeout_s = %g s)", silent,
                         comm->hosts[silent], where, timeout_s);
}
