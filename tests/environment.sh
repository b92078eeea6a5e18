# shellcheck shell=bash
# Sourced by every test that starts programs: the checkout's programs, and ranks that share two cores politely.
QUEST_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export QUEST_ROOT
export QUEST_BIN=${QUEST_BIN:-$QUEST_ROOT/build/bin}
export PATH=$QUEST_BIN:$PATH
export OMP_NUM_THREADS=1
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 # CI runs as root
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_mpi_yield_when_idle=1
export OMPI_MCA_hwloc_base_binding_policy=none QUEST_BIND=none # two suites at once would bind to the same core
