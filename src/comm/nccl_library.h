/* NCCL, loaded when several ranks have GPUs. Were the programs linked with it, none would start where it is not
 * installed, not even on one GPU, which needs none of it. */
#ifndef QUEST_COMM_NCCL_LIBRARY_H
#define QUEST_COMM_NCCL_LIBRARY_H

#include <nccl.h>
#include <stdbool.h>

#include "src/base/error.h"

/* The functions that are used, by the names that the library exports. */
#define NCCL_LIBRARY_FUNCTIONS(X) \
    X(ncclAllReduce)              \
    X(ncclCommAbort)              \
    X(ncclCommDestroy)            \
    X(ncclCommFinalize)           \
    X(ncclCommGetAsyncError)      \
    X(ncclCommInitRankConfig)     \
    X(ncclGetErrorString)         \
    X(ncclGetLastError)           \
    X(ncclGetUniqueId)            \
    X(ncclGetVersion)

/* NOLINTNEXTLINE(bugprone-macro-parentheses): a declaration */
#define NCCL_LIBRARY_MEMBER(function) __typeof__(function) *function;
struct nccl_library {
    NCCL_LIBRARY_FUNCTIONS(NCCL_LIBRARY_MEMBER)
};
#undef NCCL_LIBRARY_MEMBER

/* Loads NCCL and finds the functions; it stays loaded until the process ends. ERROR_RUNTIME says what is missing, where
 * it was looked for, and what to do. */
bool nccl_library_open(struct nccl_library *library, struct error *error);

#endif
