/* What the bfloat16 attention kernels are made of: 16-byte asynchronous copies, rows of a head in shared memory without
 * bank conflicts, and 16x8x16 tensor-core products.
 *
 * Fragments (PTX ISA, "Matrix fragments for mma.m16n8k16"). A warp's lane is `group` = lane / 4 and `pair` = lane % 4.
 *   C, D  [16, 8]  float32: rows group and group + 8, columns 2 pair and 2 pair + 1     c[0] c[1] / c[2] c[3]
 *   A     [16, 16] bf16 x2: a[0], a[1] columns 0-7, a[2], a[3] columns 8-15; odd ones rows 8-15
 *   B     [16, 8]  bf16 x2: b[0] rows 2 pair, 2 pair + 1, b[1] eight rows further; column group
 * So two neighbouring C tiles, rounded and packed, are one A fragment: a product's result feeds the next product from
 * registers when that one sums over the columns. */
#ifndef QUEST_KERNELS_CUDA_ATTENTION_MMA_SM80_CUH
#define QUEST_KERNELS_CUDA_ATTENTION_MMA_SM80_CUH

#include "kernels/cuda/vector.cuh"

struct lane_position {
    int lane, group, pair;
};

__device__ __forceinline__ lane_position lane_of_thread()
{
    int lane = threadIdx.x % 32;
    return {lane, lane / 4, lane % 4};
}

__device__ __forceinline__ uint32_t shared_address(const void *pointer)
{
    return (uint32_t)__cvta_generic_to_shared(pointer);
}

/* ---- copies from global to shared memory that pass no registers ---- */

/* 16 bytes, or 16 zeros where `inside` is false: then `from` is not read. */
__device__ __forceinline__ void copy_async(uint32_t to, const void *from, bool inside)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(inside ? 16 : 0) : "memory");
}

/* The same with 4 bytes. */
__device__ __forceinline__ void copy_async_word(uint32_t to, const void *from, bool inside)
{
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from), "r"(inside ? 4 : 0) : "memory");
}

__device__ __forceinline__ void copy_commit()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

/* Returns when at most PENDING of this thread's committed groups are still on their way. */
template <int PENDING> __device__ __forceinline__ void copy_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

/* ---- 16 bytes through registers ---- */

/* Predicated rather than branched around. */
__device__ __forceinline__ void store_global_if(bool wanted, void *to, uint4 bits)
{
    asm volatile(
        "{ .reg .pred p; setp.ne.b32 p, %0, 0; @p st.global.v4.b32 [%1], {%2, %3, %4, %5}; }" ::"r"((int)wanted),
        "l"(to), "r"(bits.x), "r"(bits.y), "r"(bits.z), "r"(bits.w)
        : "memory");
}

/* ---- rows in shared memory ---- */

constexpr int power_of_two_in(int n, int limit)
{
    return n % 2 || limit == 1 ? 1 : 2 * power_of_two_in(n / 2, limit / 2);
}

/* Rows of WIDTH bfloat16 (a multiple of 16), dense. The 16-byte units of a row are permuted by an exclusive or with
 * bits of the row number, chosen so that the same unit of any 8 neighbouring rows lies in 8 different groups of banks:
 * ldmatrix, which reads just that, takes one wavefront for each 8x8 matrix. The permutation repeats every 8 rows. */
template <int WIDTH> struct rows_of {
    static constexpr int units = WIDTH / 8;
    static constexpr int bytes = WIDTH * 2;
    static constexpr int spread = power_of_two_in(units, 8);

    static __device__ __forceinline__ uint32_t offset(int row, int unit)
    {
        return row * bytes + ((unit ^ (row / (8 / spread) % spread)) * 16);
    }
};

/* The width of rows that hold a head: products take 16 columns at a time, so an odd multiple of 8 is filled up. */
template <int HEAD_DIM> constexpr int padded = (HEAD_DIM + 15) / 16 * 16;

/* Where a lane points ldmatrix for 16 rows and the first 16 columns; add the first row's offset (a multiple of 8 rows).
 * Two orders of the four 8x8 matrices are used:
 *   DOWN    rows 0-7, rows 8-15, then the same of the second unit: A from rows; B from rows that are summed over
 * (.trans) ACROSS  both units of rows 0-7, then of rows 8-15: B from rows that are columns of the product; A transposed
 */
enum matrix_order { DOWN, ACROSS };

template <int WIDTH> static __device__ __forceinline__ uint32_t matrix_offset(matrix_order order, int lane)
{
    int row = order == DOWN ? lane % 16 : lane / 16 * 8 + lane % 8;
    int unit = order == DOWN ? lane / 16 : lane / 8 % 2;
    return rows_of<WIDTH>::offset(row, unit);
}

/* The address for columns 16 k to 16 k + 15, from that of the first ones: the permutation flips some bits of the unit,
 * so one register and an exclusive or serve all k. */
template <int WIDTH> static __device__ __forceinline__ uint32_t matrix_column(uint32_t first, int k)
{
    constexpr int permuted = rows_of<WIDTH>::spread / 2;
    return (first ^ (k % permuted * 32)) + k / permuted * permuted * 32;
}

/* The same for many rows: with KEPT all addresses that differ by more than a constant, each in its register. */
template <int WIDTH, bool KEPT> struct matrix_columns {
    static constexpr int permuted = rows_of<WIDTH>::spread / 2, count = KEPT ? permuted : 1;
    uint32_t address[count];

    __device__ __forceinline__ explicit matrix_columns(uint32_t first)
    {
#pragma unroll
        for (int k = 0; k < count; k++)
            address[k] = first ^ (k * 32);
    }
    __device__ __forceinline__ void advance(int rows)
    {
#pragma unroll
        for (int k = 0; k < count; k++)
            address[k] += rows * rows_of<WIDTH>::bytes;
    }
    /* Columns 16 K to 16 K + 15 of the 16 rows from ROW on are at at<K>() + offset<K, ROW>. */
    template <int K> __device__ __forceinline__ uint32_t at() const
    {
        return KEPT ? address[K % count] : address[0] ^ (K % permuted * 32);
    }
    template <int K, int ROW> static constexpr int offset = K / permuted *permuted * 32 + ROW *rows_of<WIDTH>::bytes;
};

/* From `address` + OFFSET; the addition is the instruction's own. */
template <int OFFSET = 0> __device__ __forceinline__ void load_matrices(uint32_t (&to)[4], uint32_t address)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4 + %5];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(address), "n"(OFFSET)
                 : "memory");
}

template <int OFFSET = 0> __device__ __forceinline__ void load_matrices_transposed(uint32_t (&to)[4], uint32_t address)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4 + %5];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(address), "n"(OFFSET)
                 : "memory");
}

/* The same at a constant distance from an address. */
template <int OFFSET> static __device__ __forceinline__ void load_matrices_at(uint32_t (&to)[4], uint32_t address)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4 + %5];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(address), "n"(OFFSET)
                 : "memory");
}

template <int OFFSET>
static __device__ __forceinline__ void load_matrices_transposed_at(uint32_t (&to)[4], uint32_t address)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4 + %5];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(address), "n"(OFFSET)
                 : "memory");
}

/* ---- products ---- */

/* d = a b + c, where c's rows group and group + 8 are (c0, c1) and (c2, c3). */
__device__ __forceinline__ void multiply(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, float c0,
                                         float c1, float c2, float c3)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%10, %11, %12, %13};"
        : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(c0), "f"(c1), "f"(c2), "f"(c3));
}

__device__ __forceinline__ void multiply_add(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* The same over the first 8 columns of a: rows 2 pair and 2 pair + 1 of b only. */
__device__ __forceinline__ void multiply_add_half(float (&d)[4], const uint32_t (&a)[4], uint32_t b)
{
    asm("mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(b));
}

__device__ __forceinline__ uint32_t pack_bf16(float low, float high)
{
    uint32_t packed;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
}

/* Two neighbouring C tiles as the A fragment of a product that sums over their columns. */
__device__ __forceinline__ void as_left_operand(uint32_t (&a)[4], const float (&left)[4], const float (&right)[4])
{
    a[0] = pack_bf16(left[0], left[1]);
    a[1] = pack_bf16(left[2], left[3]);
    a[2] = pack_bf16(right[0], right[1]);
    a[3] = pack_bf16(right[2], right[3]);
}

/* ---- between lanes ---- */

/* x of the lane whose number differs in the bits of MASK. (The intrinsics' detour over integers costs two moves in
 * PTX.) */
template <int MASK> static __device__ __forceinline__ float lane_xor(float x)
{
    float y;
    asm volatile("shfl.sync.bfly.b32 %0, %1, %2, 31, -1;" : "=f"(y) : "f"(x), "n"(MASK));
    return y;
}

static __device__ __forceinline__ float from_lane(float x, int lane)
{
    float y;
    asm volatile("shfl.sync.idx.b32 %0, %1, %2, 31, -1;" : "=f"(y) : "f"(x), "r"(lane));
    return y;
}

/* Sum and maximum over the four lanes that hold one row. */
__device__ __forceinline__ float row_sum(float x)
{
    x += lane_xor<1>(x);
    return x + lane_xor<2>(x);
}

__device__ __forceinline__ float row_max(float x)
{
    x = fmaxf(x, lane_xor<1>(x));
    return fmaxf(x, lane_xor<2>(x));
}

/* The diagonal of a product [16, 16], on all four lanes of a group: `upper` is its left half, `lower` its right half.
 */
__device__ __forceinline__ void take_diagonal(float &low, float &high, const float (&upper)[4], const float (&lower)[4],
                                              lane_position at)
{
    int holder = at.group * 4 + at.group / 2; /* the lane of the group with column `group` */
    low = from_lane(at.group % 2 ? upper[1] : upper[0], holder);
    high = from_lane(at.group % 2 ? lower[3] : lower[2], holder);
}

/* |row|^2 of rows group and group + 8 of 16 rows held as A fragments, on all four lanes of a group. An A fragment's
 * registers are also the B fragments of the transpose, so the diagonal of rows rows^T costs no load: 2 products for
 * each 16 columns instead of 64 conversions and multiplications. Products of bfloat16 are exact in float32. */
template <int STEPS>
__device__ __forceinline__ void square_norms(float &low, float &high, const uint32_t (&rows)[STEPS][4],
                                             lane_position at)
{
    float upper[4], lower[4];
    multiply(upper, rows[0], rows[0][0], rows[0][2], 0, 0, 0, 0);
    multiply(lower, rows[0], rows[0][1], rows[0][3], 0, 0, 0, 0);
#pragma unroll
    for (int k = 1; k < STEPS; k++) {
        multiply_add(upper, rows[k], rows[k][0], rows[k][2]);
        multiply_add(lower, rows[k], rows[k][1], rows[k][3]);
    }
    take_diagonal(low, high, upper, lower, at);
}

/* ---- functions of the special unit, to about 2^-22 ---- */

__device__ __forceinline__ float exp2_fast(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

__device__ __forceinline__ float log2_fast(float x)
{
    float y;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

__device__ __forceinline__ float sqrt_fast(float x)
{
    float y;
    asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

#endif
