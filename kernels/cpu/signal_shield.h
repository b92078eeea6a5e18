/* Keeps signal handlers away from threads that run oneDNN's kernels.
 *
 * oneDNN 2.6 (Debian 12) keeps values below the stack pointer in its AVX-512 kernels, beyond the 128 bytes that the
 * System V ABI reserves there. The kernel of the operating system puts the frame of a handler exactly there, so that
 * any handler, even an empty one, that runs on such a thread spoils the product or the heap. Signals are therefore
 * blocked while a product runs; they arrive after it, milliseconds later. Faults of the thread itself (SIGSEGV, SIGFPE
 * ...) and SIGABRT are left alone. */
#ifndef QUEST_KERNELS_CPU_SIGNAL_SHIELD_H
#define QUEST_KERNELS_CPU_SIGNAL_SHIELD_H

#include <signal.h>
#include <stdbool.h>

#include "src/base/error.h"

/* Blocks signals on the calling thread until signal_shield_lower() with the same *before. ERROR_RUNTIME. */
bool signal_shield_raise(sigset_t *before, struct error *error);
bool signal_shield_lower(const sigset_t *before, struct error *error);
/* Blocks them for good on the workers of the calling thread's OpenMP team of `threads`, which run kernels too: another
 * thread of the process takes the signals. ERROR_RUNTIME. */
bool signal_shield_workers(int threads, struct error *error);

#endif
