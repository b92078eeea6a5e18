"""How large everything is: on the day, and in the rehearsal (tests/gpu/rehearse), where a simulator does the work."""
import dataclasses

KINDS = ("standard", "quest", "qnorm", "qknorm", "qknorm_hs", "qknorm_ds", "quest_regularised")


@dataclasses.dataclass(frozen=True)
class Run:
    """A training whose losses were recorded on the CPU by tests/gpu/prepare."""
    name: str
    data: tuple  # arguments of quest-data synth shapes
    config: str
    steps: int
    judged: int  # of them: later, rounding alone parts runs
    precisions: dict  # precision -> largest relative difference of a step's loss from the CPU's float32 curve


@dataclasses.dataclass(frozen=True)
class Sizes:
    parity_kinds: tuple
    sanitizer: tuple  # (tool, program, arguments...)
    copy_mib: int
    product: int
    tokens: tuple
    heads: int
    attention_bytes: float  # that a forward pass moves at least
    attention_iterations: int
    presets: tuple
    batches: tuple  # beside the largest that fits
    too_many: int  # images that fit on no GPU, and whose scratch memory alone does
    iterations: int
    compiled: tuple  # (preset, batch) that PyTorch compiles before it is asked
    profile: tuple  # preset, batch
    runs: tuple
    resume_at: int
    workers: tuple
    loader_s: int
    photographs: int
    photograph_size: int
    feed_config: str
    feed_steps: int


def _sanitizer(tokens, raced, tests):
    passes = ("forward", "statistics", "backward")
    return (*(("memcheck", "attention-pass", n, what) for n in tokens
              for what in passes), *(("memcheck", f"test-{name}") for name in tests),
            *((tool, "attention-pass", n, what) for tool in ("racecheck", "synccheck") for n in raced
              for what in passes), ("initcheck", "attention-pass", raced[0], "forward"))


DEMO = """model: {image_size: 32, patch_size: 4, dim: 96, depth: 4, heads: 3}
attention: {kind: quest}
data: {train: demo.h5, augment: {flip: true, crop_padding: 2}}
train: {steps: 200, batch_size: 64}
optim: {lr: 1.0e-3, weight_decay: 0.05, warmup_steps: 100, clip_grad_norm: 1.0}
log: {every: 1}
norms: {every: 10}
"""
TINY = """model: {preset: vit_tiny, image_size: 224}
attention: {kind: quest}
data: {train: tiny.h5}
train: {steps: 20, batch_size: 8}
optim: {lr: 1.0e-3, weight_decay: 0.05, warmup_steps: 10, clip_grad_norm: 1.0}
log: {every: 1}
"""
REHEARSED = """model: {image_size: 16, patch_size: 4, dim: 32, depth: 2, heads: 2}
attention: {kind: quest}
data: {train: demo.h5, augment: {flip: true, crop_padding: 2}}
train: {steps: 6, batch_size: 8}
optim: {lr: 1.0e-3, warmup_steps: 3, clip_grad_norm: 1.0}
log: {every: 1}
"""
FEED = """model: {preset: vit_tiny, image_size: 224}
attention: {kind: quest}
data: {train: photographs.h5, workers: 16, prefetch: 8, augment: {flip: true, random_resized_crop: true}}
train: {steps: 60, batch_size: 256, precision: bf16}
log: {every: 10}
"""
REHEARSED_FEED = """model: {image_size: 32, patch_size: 16, dim: 32, depth: 1, heads: 2}
attention: {kind: quest}
data: {train: photographs.h5, workers: 2, augment: {flip: true, random_resized_crop: true}}
train: {steps: 4, batch_size: 4, precision: bf16}
log: {every: 1}
"""

LIMITS = {"fp32": 1e-3, "bf16": 2e-2}

DAY = Sizes(
    parity_kinds=KINDS,
    sanitizer=_sanitizer((50, 197, 257, 577), (197, 257), ("elementwise", "layernorm", "loss")),
    copy_mib=2048,
    product=8192,
    tokens=(65, 197, 257, 577),
    heads=6,
    attention_bytes=500e6,
    attention_iterations=50,
    presets=("vit_tiny", "vit_small", "vit_base", "vit_large"),
    batches=(128, 512),
    too_many=20_000,
    iterations=10,
    compiled=(("vit_small", 512), ("vit_tiny", 512), ("vit_small", 128), ("vit_tiny", 128)),
    profile=("vit_small", 128),
    runs=(Run("demo", ("--images", "10000", "--size", "32", "--seed", "1"), DEMO, 200, 75, LIMITS),
          Run("tiny", ("--images", "160", "--size", "224", "--seed", "3"), TINY, 20, 20, LIMITS)),
    resume_at=20,
    workers=(1, 8, 16),
    loader_s=4,
    photographs=384,
    photograph_size=256,
    feed_config=FEED,
    feed_steps=60)

REHEARSAL = Sizes(
    parity_kinds=("quest", ),
    sanitizer=_sanitizer((50, ), (50, ), ("loss", )),
    copy_mib=1,
    product=64,
    tokens=(65, ),
    heads=1,
    attention_bytes=1,
    attention_iterations=1,
    presets=("vit_tiny", ),
    batches=(1, ),
    too_many=100,
    iterations=1,
    compiled=(("vit_tiny", 1), ),
    profile=("vit_tiny", 1),
    runs=(Run("demo", ("--images", "96", "--size", "16", "--seed", "1"), REHEARSED, 6, 5, LIMITS), ),
    resume_at=3,
    workers=(1, 2),
    loader_s=1,
    photographs=16,
    photograph_size=64,
    feed_config=REHEARSED_FEED,
    feed_steps=4)

NAMED = {"day": DAY, "rehearsal": REHEARSAL}
