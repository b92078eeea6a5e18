/* Which extensions of x86-64 the objects are compiled for, and whether this CPU has them. */
#ifndef QUEST_BASE_CPU_NEEDS_H
#define QUEST_BASE_CPU_NEEDS_H

#include <stdbool.h>

/* X(macro that compilers define, name that __builtin_cpu_supports takes); those that old compilers do not know are left
 * out, as a CPU that has its neighbours has them too. */
#define CPU_EXTENSIONS(X)             \
    X(__SSE4_2__, "sse4.2")           \
    X(__POPCNT__, "popcnt")           \
    X(__AVX__, "avx")                 \
    X(__AVX2__, "avx2")               \
    X(__FMA__, "fma")                 \
    X(__BMI__, "bmi")                 \
    X(__BMI2__, "bmi2")               \
    X(__SSE4A__, "sse4a")             \
    X(__FMA4__, "fma4")               \
    X(__XOP__, "xop")                 \
    X(__AVX512F__, "avx512f")         \
    X(__AVX512CD__, "avx512cd")       \
    X(__AVX512DQ__, "avx512dq")       \
    X(__AVX512BW__, "avx512bw")       \
    X(__AVX512VL__, "avx512vl")       \
    X(__AVX512ER__, "avx512er")       \
    X(__AVX512IFMA__, "avx512ifma")   \
    X(__AVX512VBMI__, "avx512vbmi")   \
    X(__AVX512VBMI2__, "avx512vbmi2") \
    X(__AVX512VNNI__, "avx512vnni")   \
    X(__AVX512BF16__, "avx512bf16")   \
    X(__GFNI__, "gfni")

#define CPU_EXTENSION_INDEX(macro, name) CPU_NEEDS##macro,
enum { CPU_EXTENSIONS(CPU_EXTENSION_INDEX) CPU_EXTENSION_COUNT };
#undef CPU_EXTENSION_INDEX

/* The mark stands before the answers in a program's file, where a test can find them. */
struct cpu_needs {
    char mark[16];
    bool extension[CPU_EXTENSION_COUNT];
};
extern const struct cpu_needs cpu_needs;

#endif
