/* Rows of command_line.h that several benchmarks offer. Each has a struct arguments of its own, with these members. */
#ifndef QUEST_BENCH_OPTIONS_H
#define QUEST_BENCH_OPTIONS_H

#include "src/base/command_line.h"

#define INTO(member) .field = offsetof(struct arguments, member)

/* clang-format off */
#define BENCH_THREADS   {"threads", "T", "CPU threads a rank [OMP_NUM_THREADS, or the cores that it may use]", \
                         command_line_count, INTO(threads)}
#define BENCH_PRECISION {"precision", "fp32|bf16", "[fp32]", bench_take_dtype, INTO(dtype)}
#define BENCH_DEVICE    {"device", "auto|cpu|cuda", "[auto]", command_line_text, INTO(device)}
#define BENCH_JSON      {"json", NULL, "Print one JSON object", command_line_flag, INTO(json)}
#define BENCH_PRODUCTS  {"products", "auto|tuned|first|plain", "Algorithms of products on a GPU, as train.products [auto]", \
                         bench_take_products, INTO(products)}
/* clang-format on */

/* fp32 or bf16, into an enum dtype. */
bool bench_take_dtype(void *field, const struct command_option *option, const char *text, struct error *error);
/* auto, tuned, first or plain, into an enum products_mode. */
bool bench_take_products(void *field, const struct command_option *option, const char *text, struct error *error);

#endif
