/* Compares what ranks make of the same matrices. */
#include "src/train/alike.h"

#include "src/optimiser/muon.h"

bool trainer_check_alike(struct trainer *trainer, struct error *error)
{
    uint32_t mine = 0;
    if (!optimiser_is_muon(trainer->config->optim.kind) || comm_world_size(trainer->comm) == 1)
        return true;
    if (!comm_agree(trainer->comm, muon_print(trainer->model, &mine, error), error))
        return false;
    uint32_t first = mine;
    if (!comm_broadcast(trainer->comm, &first, sizeof first, 0, error))
        return false;
    bool ok = mine == first ||
              error_input(error,
                          "optim.kind %s: matrix products round otherwise than on rank 0, so parameters would "
                          "drift apart; give all ranks the same kind of processor and number of threads, or take "
                          "another optimiser",
                          optimiser_name(trainer->config->optim.kind));
    return comm_agree(trainer->comm, ok, error);
}
