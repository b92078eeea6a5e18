/* Ending a run in good order: SIGINT, SIGTERM and SIGUSR1 ask for it (mpirun passes SIGUSR1 on to its ranks and leaves
 * them time, which it does not after ctrl-C; launch/mpirun.sh uses that). A second signal, more than half a second
 * after the first (mpirun may repeat one), ends the process at once. */
#ifndef QUEST_BASE_STOP_SIGNAL_H
#define QUEST_BASE_STOP_SIGNAL_H

#include <stdbool.h>

#include "src/base/error.h"

bool stop_signal_install(struct error *error);
/* Whether this process has been asked to stop. */
bool stop_signal_raised(void);

#endif
