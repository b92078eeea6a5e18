/* Before main(): a program that was compiled for another CPU ends with a line that says so, not with SIGILL somewhere.
 * The Makefile compiles this file for every x86-64 CPU, and has every program take it in. */
#include <stdio.h>
#include <unistd.h>

#include "src/base/cpu_needs.h"

__attribute__((constructor(101))) void cpu_check(void);

void cpu_check(void)
{
    const char *missing[CPU_EXTENSION_COUNT];
    int count = 0, index = 0;
    __builtin_cpu_init();
#define CHECK(macro, name)                                             \
    if (cpu_needs.extension[index++] && !__builtin_cpu_supports(name)) \
        missing[count++] = name;
    CPU_EXTENSIONS(CHECK)
#undef CHECK
    if (count == 0)
        return;
    dprintf(STDERR_FILENO, "error: this program was compiled for another CPU: this machine's has no ");
    for (int i = 0; i < count; i++)
        dprintf(STDERR_FILENO, "%s%s", i ? ", " : "", missing[i]);
    dprintf(STDERR_FILENO, "; compile it here (make clean all), or for all machines at once (make MARCH=x86-64-v3)\n");
    _exit(2);
}
