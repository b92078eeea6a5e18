/* What the objects are compiled for, as the compiler says it of this one. Data, no code: cpu_check.c reads it on CPUs
 * that lack it. */
#include "src/base/cpu_needs.h"

/* 1 where the compiler defines the macro, as 1, else 0. */
#define BESIDE_1          0,
#define SECOND(a, b, ...) b
/* NOLINTNEXTLINE(bugprone-macro-parentheses): what is given may end in a comma, which makes it two arguments */
#define CHOSEN(beside_or_name) SECOND(beside_or_name 1, 0, 0)
#define JOINED(value)          CHOSEN(BESIDE_##value)
#define IS_SET(macro)          JOINED(macro)
#define ANSWER(macro, name)    IS_SET(macro),

const struct cpu_needs cpu_needs = {"QUEST CPU needs", {CPU_EXTENSIONS(ANSWER)}};
