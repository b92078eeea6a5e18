/* 16-byte accesses and conversions: the packs that every elementwise kernel reads and writes. */
#ifndef QUEST_KERNELS_CUDA_VECTOR_CUH
#define QUEST_KERNELS_CUDA_VECTOR_CUH

#include <cuda_bf16.h>
#include <stdint.h>

#include "kernels/kernels.h"

typedef __nv_bfloat16 bfloat16;

/* COUNT neighbouring numbers, moved in one access: 16 bytes where rows start on a multiple of 16 bytes, else one. */
template <typename T, int COUNT> struct alignas(sizeof(T) * COUNT) pack {
    T value[COUNT];
};

/* How many T a 16-byte access holds. */
template <typename T> constexpr int wide = 16 / sizeof(T);

__device__ __forceinline__ float to_float(float x)
{
    return x;
}
__device__ __forceinline__ float to_float(bfloat16 x)
{
    return __bfloat162float(x);
}

template <typename T> __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ float from_float<float>(float x)
{
    return x;
}
template <> __device__ __forceinline__ bfloat16 from_float<bfloat16>(float x)
{
    return __float2bfloat16_rn(x);
}

/* The register type that a pack travels in, so that the compiler moves it in one instruction. */
template <int BYTES> struct carrier;
template <> struct carrier<16> {
    typedef uint4 type;
};
template <> struct carrier<8> {
    typedef uint2 type;
};
template <> struct carrier<4> {
    typedef uint32_t type;
};
template <> struct carrier<2> {
    typedef uint16_t type;
};

/* A pack that is on its way: nothing waits for the load until open_pack looks into it. (The compiler takes a pack of
 * narrow numbers apart as soon as it can, and waits for that.) */
template <typename T, int COUNT> using closed_pack = typename carrier<sizeof(T) * COUNT>::type;

/* Pack number `index` of an array; the array starts on a multiple of the pack. */
template <int COUNT, typename T> __device__ __forceinline__ closed_pack<T, COUNT> load_closed(const T *x, size_t index)
{
    return reinterpret_cast<const closed_pack<T, COUNT> *>(x)[index];
}
template <typename T, int COUNT> __device__ __forceinline__ pack<T, COUNT> open_pack(closed_pack<T, COUNT> closed)
{
    pack<T, COUNT> value;
    memcpy(&value, &closed, sizeof closed);
    return value;
}
template <int COUNT, typename T> __device__ __forceinline__ pack<T, COUNT> load_pack(const T *x, size_t index)
{
    return open_pack<T, COUNT>(load_closed<COUNT>(x, index));
}
/* To global memory. __stwb is an ordinary store that the compiler cannot take apart; without it packs made of single
 * numbers were stored in single numbers. */
template <int COUNT, typename T> __device__ __forceinline__ void store_pack(T *x, size_t index, pack<T, COUNT> value)
{
    typedef typename carrier<sizeof(T) * COUNT>::type bits;
    bits raw;
    memcpy(&raw, &value, sizeof raw);
    __stwb(reinterpret_cast<bits *>(x) + index, raw);
}

/* Pack number `index` of a float32 array that goes with packs of COUNT narrower numbers: 1, or 16-byte accesses. */
template <int COUNT> __device__ __forceinline__ pack<float, COUNT> load_floats(const float *x, size_t index)
{
    constexpr int piece = COUNT < 4 ? COUNT : 4;
    pack<float, COUNT> value;
#pragma unroll
    for (int i = 0; i < COUNT / piece; i++) {
        pack<float, piece> part = load_pack<piece>(x, index * (COUNT / piece) + i);
#pragma unroll
        for (int j = 0; j < piece; j++)
            value.value[piece * i + j] = part.value[j];
    }
    return value;
}

/* x[index] = value, likewise, in global memory. */
template <int COUNT> __device__ __forceinline__ void store_floats(float *x, size_t index, const float (&value)[COUNT])
{
    constexpr int piece = COUNT < 4 ? COUNT : 4;
#pragma unroll
    for (int i = 0; i < COUNT / piece; i++) {
        pack<float, piece> part;
#pragma unroll
        for (int j = 0; j < piece; j++)
            part.value[j] = value[piece * i + j];
        store_pack<piece>(x, index * (COUNT / piece) + i, part);
    }
}

/* x[index] += value, likewise, in global memory. */
template <int COUNT> __device__ __forceinline__ void add_floats(float *x, size_t index, const float (&value)[COUNT])
{
    constexpr int piece = COUNT < 4 ? COUNT : 4;
#pragma unroll
    for (int i = 0; i < COUNT / piece; i++) {
        pack<float, piece> part = load_pack<piece>(x, index * (COUNT / piece) + i);
#pragma unroll
        for (int j = 0; j < piece; j++)
            part.value[j] += value[piece * i + j];
        store_pack<piece>(x, index * (COUNT / piece) + i, part);
    }
}

/* ---- choosing a kernel ---- */

template <typename T, int COUNT> struct access {
    typedef T type;
    static constexpr int width = COUNT;
};

/* Calls f(access<T, COUNT>{}) with the type and the widest access under which every row of `dim` numbers starts on a
 * multiple of it. */
template <typename F> static bool with_access(enum dtype dtype, size_t dim, F f)
{
    if (dtype == DTYPE_FLOAT32)
        return dim % wide<float> == 0 ? f(access<float, wide<float>>{}) : f(access<float, 1>{});
    return dim % wide<bfloat16> == 0 ? f(access<bfloat16, wide<bfloat16>>{}) : f(access<bfloat16, 1>{});
}

/* Calls f with a value of the type. */
template <typename F> static bool with_type(enum dtype dtype, F f)
{
    return dtype == DTYPE_FLOAT32 ? f(float()) : f(bfloat16());
}

/* ---- sums over the lanes of a warp, the same on every lane; the order is fixed ---- */

template <typename N> __device__ __forceinline__ N warp_sum(N x)
{
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, offset);
    return x;
}

__device__ __forceinline__ float warp_max(float x)
{
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2)
        x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, offset));
    return x;
}

/* Over a block of at most 1024 threads; `scratch` holds 32 numbers of shared memory, free again on return. */
template <typename N> __device__ __forceinline__ N block_sum(N x, N *scratch)
{
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = (blockDim.x + 31) / 32;
    x = warp_sum(x);
    if (lane == 0)
        scratch[warp] = x;
    __syncthreads();
    x = warp_sum(lane < warps ? scratch[lane] : N(0));
    __syncthreads();
    return x;
}

__device__ __forceinline__ float block_max(float x, float *scratch)
{
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = (blockDim.x + 31) / 32;
    x = warp_max(x);
    if (lane == 0)
        scratch[warp] = x;
    __syncthreads();
    x = warp_max(scratch[lane < warps ? lane : 0]);
    __syncthreads();
    return x;
}

#endif
