/* What prepare.cu and prepare_rows.cu share. */
#ifndef QUEST_KERNELS_CUDA_ATTENTION_PREPARE_CUH
#define QUEST_KERNELS_CUDA_ATTENTION_PREPARE_CUH

#include "kernels/cuda/attention/records.cuh"
#include "kernels/cuda/attention/transform.cuh"

enum { PREPARE_WARPS = 8 };

#endif
