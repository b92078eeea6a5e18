/* What the files of the CPU backend ask about this CPU: its threads, its instructions, its memory. It uses none of
 * them, so that what a context is opened for can be planned without the table. */
#include <oneapi/dnnl/dnnl.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/host_memory.h"

int cpu_threads(int wanted)
{
    return wanted > 0 ? wanted : omp_get_max_threads();
}

bool cpu_supports(enum dtype dtype, struct error *error)
{
    if (dtype == DTYPE_FLOAT32 ||
        (dnnl_get_effective_cpu_isa() & dnnl_cpu_isa_avx512_core_bf16) == dnnl_cpu_isa_avx512_core_bf16)
        return true;
    return error_input(error, "this CPU has no bfloat16 instructions (AVX512-BF16 or AMX); use fp32 precision");
}

/* Transparent huge pages spare a step over hundreds of MiB most of its TLB misses. Only whole ones are asked for, so
 * that no more memory is taken than was planned; it is advice, and a kernel without them may say no. */
bool cpu_allocate_zeroed(void **memory, size_t bytes, const char *what, struct error *error)
{
    const size_t huge_page = (size_t)2 << 20;
    size_t alignment = bytes >= huge_page ? huge_page : 64;
    *memory = NULL;
    if (posix_memalign(memory, alignment, bytes > 0 ? bytes : 1) != 0)
        return error_runtime(error, "out of memory: %.1f MiB for %s", (double)bytes / 1048576.0, what);
    if (bytes >= huge_page)
        madvise(*memory, bytes / huge_page * huge_page, MADV_HUGEPAGE);
    memset(*memory, 0, bytes);
    return true;
}

static void model_name(char *name, size_t name_bytes)
{
    snprintf(name, name_bytes, "unknown CPU");
    FILE *file = fopen("/proc/cpuinfo", "r");
    if (!file)
        return;
    char line[256];
    while (fgets(line, sizeof line, file)) {
        char *value = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || !value)
            continue;
        value[strcspn(value, "\n")] = '\0';
        snprintf(name, name_bytes, "%s", value + 2);
        break;
    }
    fclose(file);
}

static const char *instruction_set(void)
{
    static const struct {
        unsigned bits;
        const char *name;
    } sets[] = {
        {dnnl_cpu_isa_avx512_core_amx, "AMX"},
        {dnnl_cpu_isa_avx512_core_bf16, "AVX-512 with bfloat16"},
        {dnnl_cpu_isa_avx512_core_vnni, "AVX-512"},
        {dnnl_cpu_isa_avx512_core, "AVX-512"},
        {dnnl_cpu_isa_avx2, "AVX2"},
        {dnnl_cpu_isa_avx, "AVX"},
        {dnnl_cpu_isa_sse41, "SSE4.1"},
    };
    unsigned isa = dnnl_get_effective_cpu_isa();
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)
        if ((isa & sets[i].bits) == sets[i].bits)
            return sets[i].name;
    return "no vector instructions";
}

void cpu_describe(struct context *ctx, char *text, size_t text_bytes)
{
    char model[128];
    struct error ignored;
    size_t available = 0;
    const dnnl_version_t *version = dnnl_version();
    model_name(model, sizeof model);
    int used =
        snprintf(text, text_bytes, "%s, %d thread%s, oneDNN %d.%d.%d with %s", model, ctx->threads,
                 ctx->threads == 1 ? "" : "s", version->major, version->minor, version->patch, instruction_set());
    if (used >= 0 && (size_t)used < text_bytes && host_memory_available(&available, &ignored))
        snprintf(text + used, text_bytes - (size_t)used, ", %.1f GiB of memory free", (double)available / 1073741824.0);
}
