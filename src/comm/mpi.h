/* The communicator under a struct comm, for those parts of src/comm that call MPI themselves. */
#ifndef QUEST_COMM_MPI_H
#define QUEST_COMM_MPI_H

#include <mpi.h>

#include "src/comm/comm.h"

MPI_Comm comm_mpi(const struct comm *comm);

#endif
