"""The steps in their order: section by section what a GPU has to answer."""
import collections

from . import attention, ceilings, correctness, feeding, memory_limit, products, profile, start, step_speed, training

# limit_s: it is stopped then. beside: starts with the row before it instead of behind it (nothing is timed there).
# background: starts, and the plan goes on; it lasts until the end.
Row = collections.namedtuple("Row", "name limit_s answers function beside background", defaults=(False, False))

PLAN = [
    Row("start", 40, "does it start: libraries, GPU, a first step", start.start),
    Row("peers", 0, "PyTorch compiles its models meanwhile", step_speed.peers_in_background, background=True),
    Row("ops", 60, "op tests natively, twice", correctness.ops),
    Row("parity", 80, "PyTorch's float64 fixtures, fp32 and bf16, all kinds", correctness.parity, beside=True),
    Row("sanitizer", 90, "memory, races, barriers", correctness.sanitizer),
    Row("ceilings", 40, "what the rest is measured against", ceilings.ceilings),
    Row("products", 60, "which algorithms cuBLASLt takes, and the tuner's", products.products),
    Row("attention", 90, "attention beside its bytes' floor and PyTorch's", attention.attention),
    Row("step", 110, "training steps and their memory", step_speed.ours),
    Row("step_peers", 80, "the same by timm, compiled", step_speed.peers),
    Row("profile", 70, "which bound holds, kernel by kernel", profile.profile),
    Row("training", 80, "loss beside the CPU's, same bits twice, resume", training.training),
    Row("feeding", 60, "can the loader feed it", feeding.feeding),
    Row("limits", 40, "NCCL alone, batches at the memory plan's limit", memory_limit.limits),
]
