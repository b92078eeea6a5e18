/* The ranks' GPUs joined by NCCL into one communicator, and calls on it that are waited for. */
#ifndef QUEST_COMM_NCCL_GROUP_H
#define QUEST_COMM_NCCL_GROUP_H

#include "src/comm/comm.h"
#include "src/comm/nccl_library.h"

struct nccl_group {
    struct comm *comm;
    int device;       /* of this rank, index on its host */
    double timeout_s; /* of joining and of calls */
    struct nccl_library library;
    ncclComm_t communicator; /* not blocking: a call may be under way when it has returned */
};

/* Loads NCCL and joins all ranks of group->comm; comm, device and timeout_s are the caller's. Collective. ERROR_INPUT:
 * ranks share a GPU or have other versions of NCCL. */
bool nccl_group_join(struct nccl_group *group, struct error *error);

/* Waits for a call that returned `result`: one on a communicator that does not block is done when its asynchronous
 * error is no longer ncclInProgress. Costs microseconds where NCCL takes microseconds. ERROR_RUNTIME after timeout_s.
 */
bool nccl_group_wait(const struct nccl_group *group, ncclResult_t result, double timeout_s, const char *call,
                     struct error *error);
/* Whether a call that returned `result` is still under way; does not wait. */
bool nccl_group_is_busy(const struct nccl_group *group, ncclResult_t result);

/* Ends the communicator in good order: lets the other ranks finish reading what they get from this one; one that is
 * gone is not waited for long, then it is aborted. false with the reason in `error`, which may be ignored. */
bool nccl_group_leave(struct nccl_group *group, struct error *error);

#endif
