/* cuBLAS and cuBLASLt, loaded when a GPU is opened. Were the programs linked with them, their start-up code would take
 * 190 MiB and a tenth of a second of every process, on hosts without a GPU too (CUDA 13.0). */
#ifndef QUEST_KERNELS_CUDA_CUBLAS_LIBRARY_H
#define QUEST_KERNELS_CUDA_CUBLAS_LIBRARY_H

#include <cublasLt.h>
#include <cublas_v2.h>
#include <stdbool.h>

#include "src/base/error.h"

/* The functions that are used, by the names that the libraries export. */
#define CUBLAS_LIBRARY_FUNCTIONS(X)         \
    X(cublasCreate_v2)                      \
    X(cublasDestroy_v2)                     \
    X(cublasGemmEx)                         \
    X(cublasGetStatusString)                \
    X(cublasSetStream_v2)                   \
    X(cublasSetWorkspace_v2)                \
    X(cublasLtCreate)                       \
    X(cublasLtDestroy)                      \
    X(cublasLtGetVersion)                   \
    X(cublasLtMatmul)                       \
    X(cublasLtMatmulAlgoCheck)              \
    X(cublasLtMatmulAlgoConfigGetAttribute) \
    X(cublasLtMatmulAlgoGetHeuristic)       \
    X(cublasLtMatmulDescCreate)             \
    X(cublasLtMatmulDescDestroy)            \
    X(cublasLtMatmulDescSetAttribute)       \
    X(cublasLtMatmulPreferenceCreate)       \
    X(cublasLtMatmulPreferenceDestroy)      \
    X(cublasLtMatmulPreferenceSetAttribute) \
    X(cublasLtMatrixLayoutCreate)           \
    X(cublasLtMatrixLayoutDestroy)

/* NOLINTNEXTLINE(bugprone-macro-parentheses): a declaration */
#define CUBLAS_LIBRARY_MEMBER(function) __typeof__(function) *function;
struct cublas_library {
    CUBLAS_LIBRARY_FUNCTIONS(CUBLAS_LIBRARY_MEMBER)
};
#undef CUBLAS_LIBRARY_MEMBER

/* Loads both, of the toolkit's version that this was built with, and finds the functions. They stay loaded until the
 * process ends. ERROR_RUNTIME names the library or function that is missing, in the loader's words. */
bool cublas_library_open(struct cublas_library *library, struct error *error);

#endif
