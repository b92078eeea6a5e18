#include "src/comm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "src/clock.h"
#include "src/comm_gradient.h"

#define HOST_BYTES  64
#define TAG_WAITING 7 /* "I wait for somebody": see comm_find_silent_rank */

struct comm {
    MPI_Comm world; /* our own: a user's library may use MPI_COMM_WORLD */
    int rank, size, local_rank, local_size;
    char (*hosts)[HOST_BYTES]; /* [size] */
    int any_flag, any_answer;  /* of the question under way */
    MPI_Request any_request;
    const struct comm_gradient_backend *backend;
    struct comm_gradient *gradient;
    double timeout_s; /* comm.timeout_s, from the gradient's plan; 0: none yet */
    bool rank_lost;   /* somebody no longer answers: nothing collective may follow, MPI_Finalize least of all */
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
    if (comm->gradient)
        comm->backend->close(comm->gradient);
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
    struct error shared = *error;
    MPI_Bcast(&shared, sizeof shared, MPI_BYTE, first_bad, comm->world);
    *error = shared;
    /* A mistake that every rank sees (a wrong key, a missing file) belongs to none of them; rank 0 acts for all. */
    if (bad_count < comm->size && first_bad != 0)
        error_prefix(error, "rank %d (%s)", first_bad, comm->hosts[first_bad]);
    return false;
}

_Noreturn void comm_exit(struct comm *comm, const struct error *error, bool agreed)
{
    int status = error->status == ERROR_NONE ? ERROR_RUNTIME : (int)error->status;
    if (!comm || !comm->hosts) {
        fprintf(stderr, "error: %s\n", error->message);
        exit(status);
    }
    if ((!agreed || comm->rank_lost) && comm->size > 1) { /* MPI_Abort adds lines of its own */
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

static bool silent_rank_error(struct comm *comm, struct error *error)
{
    int silent;
    if (!comm_find_silent_rank(comm, &silent, error))
        return false;
    if (silent < 0)
        return error_runtime(error,
                             "a sum over the ranks took longer than comm.timeout_s = %g s though every rank is waiting "
                             "in it; look at the network between the hosts",
                             comm->timeout_s);
    return error_runtime(error, "rank %d (%s) stopped answering between two steps (comm.timeout_s = %g s)", silent,
                         comm->hosts[silent], comm->timeout_s);
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
        if (!comm_gradient_progress(comm, error) || (!in_time && !silent_rank_error(comm, error))) {
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

/* ---- gradients ---- */

bool comm_gradient_timed_out(struct comm *comm, uint64_t step, double timeout_s, struct error *error)
{
    int silent;
    if (!comm_find_silent_rank(comm, &silent, error))
        return false;
    if (silent < 0)
        return error_runtime(
            error,
            "the gradient all-reduce of step %llu took longer than comm.timeout_s = %g s though every rank "
            "is waiting in it; look at the network between the hosts",
            (unsigned long long)step, timeout_s);
    return error_runtime(
        error, "rank %d (%s) stopped answering in the gradient all-reduce of step %llu (comm.timeout_s = %g s)", silent,
        comm->hosts[silent], (unsigned long long)step, timeout_s);
}

static const struct comm_gradient_backend *backend_for(const struct comm_gradient_options *options)
{
#ifndef QUEST_NO_CUDA
    if (options->kernels->stream(options->context))
        return &comm_gradient_nccl;
#endif
    (void)options;
    return &comm_gradient_mpi;
}

size_t comm_gradient_scratch_bytes(const struct comm *comm, const struct comm_gradient_options *options)
{
    return comm->size > 1 ? backend_for(options)->scratch_bytes(comm, options) : 0;
}

bool comm_gradient_plan(struct comm *comm, const struct comm_gradient_options *options, struct error *error)
{
    if (comm->size == 1)
        return true;
    comm->timeout_s = options->timeout_s;
    comm->backend = backend_for(options);
    return comm->backend->open(&comm->gradient, comm, options, error);
}

void comm_gradient_close(struct comm *comm)
{
    if (comm->gradient)
        comm->backend->close(comm->gradient);
    comm->gradient = NULL;
}

bool comm_gradient_ready(struct comm *comm, size_t done, struct error *error)
{
    return !comm->gradient || comm->backend->ready(comm->gradient, done, error);
}

bool comm_gradient_progress(struct comm *comm, struct error *error)
{
    return !comm->gradient || comm->backend->progress(comm->gradient, error);
}

bool comm_gradient_finish(struct comm *comm, uint64_t step, double *wait_s, struct error *error)
{
    *wait_s = 0;
    return !comm->gradient || comm->backend->finish(comm->gradient, step, wait_s, error);
}
