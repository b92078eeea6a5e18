/* Joins the ranks' GPUs with NCCL: who is where, the communicator, and its end. */
#include "src/comm/nccl_group.h"

#include <math.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/cuda_streams.h"
#include "src/base/clock.h"
#include "src/comm/mpi.h"

/* While NCCL says "in progress": it starts a reduction from a thread of its own within some ten microseconds, so that a
 * host which slept at once would sleep longer than that. */
#define BRISK_S 200e-6
#define NAP_NS  50000
#define CLOSE_S 5.0

static bool nccl_failed(const struct nccl_group *group, const char *call, ncclResult_t result, struct error *error)
{
    const char *detail = group->communicator ? group->library.ncclGetLastError(group->communicator) : "";
    return error_runtime(error, "%s: %s%s%.300s (NCCL_DEBUG=WARN says more)", call,
                         group->library.ncclGetErrorString(result), detail && *detail ? ": " : "",
                         detail ? detail : "");
}

static void wait_a_little(double since_s)
{
    if (clock_s() - since_s < BRISK_S)
        sched_yield();
    else
        nanosleep(&(struct timespec){0, NAP_NS}, NULL);
}

bool nccl_group_wait(const struct nccl_group *group, ncclResult_t result, double timeout_s, const char *call,
                     struct error *error)
{
    for (double begin = clock_s(); result == ncclInProgress;) {
        ncclResult_t asked = group->library.ncclCommGetAsyncError(group->communicator, &result);
        if (asked != ncclSuccess)
            return nccl_failed(group, call, asked, error);
        if (result != ncclInProgress)
            break;
        if (clock_s() - begin > timeout_s)
            return error_runtime(error, "%s did not end within comm.timeout_s = %g s", call, timeout_s);
        wait_a_little(begin);
    }
    return result == ncclSuccess ? true : nccl_failed(group, call, result, error);
}

bool nccl_group_is_busy(const struct nccl_group *group, ncclResult_t result)
{
    return result == ncclInProgress &&
           group->library.ncclCommGetAsyncError(group->communicator, &result) == ncclSuccess &&
           result == ncclInProgress;
}

/* ---- who is where ---- */

struct place {
    char pci[16]; /* bus id of the GPU */
    int nccl_version;
};

static bool same_gpu(struct comm *comm, const struct place *places, int a, int b, struct error *error)
{
    if (strcmp(places[a].pci, places[b].pci) != 0 || strcmp(comm_host_of(comm, a), comm_host_of(comm, b)) != 0)
        return false;
    error_input(error,
                "ranks %d and %d share GPU %s on host %s; each rank needs its own: start fewer ranks there (mpirun "
                "--map-by ppr:N:node) or check CUDA_VISIBLE_DEVICES",
                a, b, places[a].pci, comm_host_of(comm, a));
    return true;
}

/* All ranks see the same places, so all come to the same error. */
static bool check_places(struct comm *comm, const struct place *places, struct error *error)
{
    for (int rank = 0; rank < comm_world_size(comm); rank++) {
        if (places[rank].nccl_version != places[0].nccl_version)
            return error_input(error,
                               "rank 0 (%s) has NCCL %d and rank %d (%s) has NCCL %d; install the same version on all "
                               "hosts (LD_LIBRARY_PATH may point to another one)",
                               comm_host_of(comm, 0), places[0].nccl_version, rank, comm_host_of(comm, rank),
                               places[rank].nccl_version);
        for (int other = 0; other < rank; other++)
            if (same_gpu(comm, places, other, rank, error))
                return false;
    }
    return true;
}

static bool exchange_places(struct nccl_group *group, struct error *error)
{
    struct comm *comm = group->comm;
    struct place mine = {{0}, 0}, *all = calloc((size_t)comm_world_size(comm), sizeof *all);
    if (!all)
        return error_runtime(error, "out of memory for the list of GPUs");
    bool ok = CUDA_TRY(cudaDeviceGetPCIBusId(mine.pci, sizeof mine.pci, group->device), error);
    ncclResult_t version = group->library.ncclGetVersion(&mine.nccl_version);
    if (ok && version != ncclSuccess)
        ok = nccl_failed(group, "ncclGetVersion", version, error);
    /* Also a rank that failed takes part, or the others would wait for it. */
    int code = MPI_Allgather(&mine, sizeof mine, MPI_BYTE, all, sizeof mine, MPI_BYTE, comm_mpi(comm));
    if (ok && code != MPI_SUCCESS)
        ok = error_runtime(error, "MPI_Allgather of the ranks' GPUs failed");
    ok = comm_agree(comm, ok, error) && check_places(comm, all, error);
    free(all);
    return ok;
}

/* ---- the communicator ---- */

static bool open_communicator(struct nccl_group *group, struct error *error)
{
    struct comm *comm = group->comm;
    ncclUniqueId id;
    memset(&id, 0, sizeof id);
    ncclResult_t result = comm_rank(comm) == 0 ? group->library.ncclGetUniqueId(&id) : ncclSuccess;
    bool ok = result == ncclSuccess ? true : nccl_failed(group, "ncclGetUniqueId", result, error);
    if (!comm_agree(comm, ok, error) || !comm_broadcast(comm, &id, sizeof id, 0, error))
        return false;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    result = group->library.ncclCommInitRankConfig(&group->communicator, comm_world_size(comm), id, comm_rank(comm),
                                                   &config);
    ok = result == ncclSuccess || result == ncclInProgress
             ? nccl_group_wait(group, result, group->timeout_s, "joining the ranks with NCCL", error)
             : nccl_failed(group, "ncclCommInitRankConfig", result, error);
    return comm_agree(comm, ok, error);
}

bool nccl_group_join(struct nccl_group *group, struct error *error)
{
    return comm_agree(group->comm, nccl_library_open(&group->library, error), error) && exchange_places(group, error) &&
           open_communicator(group, error);
}

bool nccl_group_leave(struct nccl_group *group, struct error *error)
{
    if (!group->communicator)
        return true;
    ncclResult_t result = group->library.ncclCommFinalize(group->communicator);
    bool ok = nccl_group_wait(group, result, CLOSE_S, "ncclCommFinalize", error);
    if (ok)
        group->library.ncclCommDestroy(group->communicator);
    else
        group->library.ncclCommAbort(group->communicator);
    group->communicator = NULL;
    return ok;
}
