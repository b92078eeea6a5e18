"""Step attention: time of a pass over the time that its bytes take at a copy's rate, and PyTorch's, same shapes."""
import json
import math

from . import ceilings
from .day import Day

PASSES = {"forward": ([], "<= 1.3"), "statistics": (["--statistics"], None), "backward": (["--backward"], "<= 2.0")}


def batch_of(sizes, tokens):
    """Images, so that a forward pass (Q, K, V read, O written) moves what is asked."""
    return math.ceil(sizes.attention_bytes / (4 * sizes.heads * tokens * 64 * 2))


def attention(day: Day):
    sizes, copy = day.sizes, ceilings.copy_gb_per_s(day)
    for tokens in sizes.tokens:
        for kind in ("standard", "quest"):
            for name, (option, aim) in PASSES.items():
                what = f"attention {tokens} {kind} {name}"
                command = day.bench("attention", "--kind", kind, "--tokens", tokens, "--heads", sizes.heads,
                                    "--head-dim", 64, "--batch", batch_of(sizes, tokens), "--iterations",
                                    sizes.attention_iterations, *option)
                answer = day.json_of(what, day.run(command))
                if answer:
                    day.figure(what, round(1000 * answer["time_ms"], 2), "us")
                    day.figure(f"{what} over its floor", round(copy / answer["gb_per_s"], 3), "x", aim)
    shapes = [f"{batch_of(sizes, tokens)}x{sizes.heads}x{tokens}" for tokens in sizes.tokens]
    outcome = day.run_peers("attention", "--shapes", ",".join(shapes), "--iterations", sizes.attention_iterations)
    day.check_run("PyTorch's attention", outcome)
    for line in outcome.stdout.splitlines():
        entry = json.loads(line)
        if entry["value"] is None:  # a back end that does not take these shapes is no failure of ours
            day.check(entry["name"], True, entry["why"])
        else:
            day.figure(entry["name"], entry["value"], "us")
