/* A thread that notices what no host thread would: a reduction that does not end on the device, and NCCL's asynchronous
 * errors. It then aborts the communicator, which lets the streams run dry, and whoever asks next is told. */
#ifndef QUEST_COMM_NCCL_WATCH_H
#define QUEST_COMM_NCCL_WATCH_H

#include <cuda_runtime_api.h>

#include "src/comm/nccl_group.h"

struct nccl_watch;

/* Of steps of `buckets` reductions each, of which two may be queued at a time. `group` is joined. */
bool nccl_watch_open(struct nccl_watch **watch, struct nccl_group *group, size_t buckets, struct error *error);
/* The communicator is the caller's to end, unless it was aborted: then group->communicator is NULL. */
void nccl_watch_close(struct nccl_watch *watch);

/* Every call on the communicator stands between these two, so that it is not aborted in the middle of one. false: it
 * was aborted before; nothing may be called then, nor nccl_watch_exit. */
bool nccl_watch_enter(struct nccl_watch *watch);
void nccl_watch_exit(struct nccl_watch *watch);

/* Queued on the stream before and after the reduction of one bucket: it takes too long when the device has been between
 * the two for group->timeout_s, however long what was queued before took. */
bool nccl_watch_begin(struct nccl_watch *watch, size_t bucket, cudaStream_t stream, struct error *error);
bool nccl_watch_end(struct nccl_watch *watch, size_t bucket, cudaStream_t stream, struct error *error);
/* All buckets of this step are queued; from here on they are watched. */
void nccl_watch_step(struct nccl_watch *watch, uint64_t step);

/* false with what was found in `error`: the step, and the rank that keeps silent. */
bool nccl_watch_healthy(struct nccl_watch *watch, struct error *error);

/* The device has not reached it yet; an event that failed is none of ours to report. */
bool nccl_event_is_pending(cudaEvent_t event);

#endif
