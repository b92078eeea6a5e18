"""Steps step, peers and step_peers: whole training steps, beside timm's models by PyTorch at the same batches.

PyTorch starts early, compiles while the tests run, and then waits for the file `go`, which lists what it is to measure:
    signals/pid    of PyTorch's side
    signals/idle   it is quiet from now on
    signals/go     lines "preset batch"
    signals/done   it has written models.jsonl to its end"""
import json
import os
import re
import time

from . import processes
from .day import Day, MemoryWatch, reason

COMPILE_UNTIL_S = 130  # of the day; a model takes about 40 s, and timing begins soon after


def largest_batch(day, preset):
    """What the memory plan lets through: a refusal suggests a batch, from far above not to the image."""
    batch, suggestions = day.sizes.too_many, []
    for _ in range(5):
        outcome = day.run(day.bench("step", "--preset", preset, "--batch", batch, "--iterations", 1, "--warmup", 0))
        if outcome.status == 0 and suggestions:
            day.check(f"{preset}: the memory plan names the largest batch", True, f"suggested: {suggestions}")
            return batch
        found = re.search(r"(\d+) images", outcome.stderr)
        if outcome.status != 2 or not found or int(found.group(1)) >= batch:
            break
        batch = int(found.group(1))
        suggestions.append(batch)
    day.check(f"{preset}: the memory plan names the largest batch", False,
              f"suggested: {suggestions}; {reason(outcome)}")
    return None


def measure(day, preset, batch):
    """One quest-bench step: (its JSON object, planned MiB, peak MiB of the GPU); None where it did not run."""
    with MemoryWatch() as watch:
        outcome = day.run(day.bench("step", "--preset", preset, "--batch", batch, "--iterations", day.sizes.iterations))
    name = f"step {preset} {batch}"
    if outcome.status == 2 and "images" in outcome.stderr:
        day.check(f"{name}: refused", True, reason(outcome))
        return None
    answer = day.json_of(name, outcome)
    planned = re.findall(r"(reserve|together) ([\d.]+) MiB", outcome.stderr)  # what is kept free is no need
    needed = sum(float(mib) * (1 if what == "together" else -1) for what, mib in planned)
    return (answer, needed or None, watch.peak_mib) if answer else None


def context_mib(day):
    """What the driver and the libraries take beside what we plan: a small model's peak less its plan."""
    small = measure(day, day.sizes.presets[0], 1)
    return small[2] - small[1] if small and small[1] else 0.0


def ours(day: Day):
    beside = context_mib(day)
    day.figure("GPU memory beside the plan", round(beside), "MiB")
    for preset in day.sizes.presets:
        largest = largest_batch(day, preset)
        for batch in dict.fromkeys([*day.sizes.batches, *([int(0.97 * largest)] if largest else [])]):
            found = measure(day, preset, batch)
            if not found:
                continue
            answer, planned, peak = found
            name = f"step {preset} {batch}"
            day.figure(f"{name}: rate", round(answer["images_per_s"], 1), "images/s")
            day.figure(f"{name}: time", round(answer["step_time_ms"], 3), "ms")
            day.figure(f"{name}: peak memory", round(peak), "MiB")
            floor = day.json_of(f"{name}: floor",
                                day.run(day.bench("step", "--floor", "--preset", preset, "--batch", batch)))
            if floor:
                ratio = answer["step_time_ms"] / floor["floor_ms"]
                day.figure(f"{name}: time over its modelled floor", round(ratio, 3), "x")
            if planned:
                day.figure(f"{name}: peak over plan", round((peak - beside) / planned, 4), "x", "<= 1.03")


def peers_in_background(day: Day):
    """Becomes PyTorch's side."""
    day.signals.mkdir(exist_ok=True)
    until = day.options.begin_s + COMPILE_UNTIL_S
    compiled = ",".join(f"{preset}:{batch}" for preset, batch in day.sizes.compiled)
    (day.signals / "pid").write_text(f"{os.getpid()}")
    command = day.peers("models", "--signals", day.signals, "--compile", compiled, "--until", until)
    os.execvp(command[0], command)


def peers_run(day):
    pid = day.signals / "pid"
    return pid.exists() and processes.runs(pid.read_text())


def _wanted(day):
    """The batches that we measured, most telling first; equal ones for both sides."""
    pairs = re.findall(r"step (\w+) (\d+): rate", "\n".join(day.measured()))
    order = ["vit_small", "vit_tiny", "vit_base", "vit_large"]
    return sorted(((preset, int(batch)) for preset, batch in pairs), key=lambda pair:
                  (pair[1] not in day.sizes.batches, order.index(pair[0]), -pair[1]))


def peers(day: Day):
    partial = day.signals / "go.partial"
    partial.write_text("".join(f"{preset} {batch}\n" for preset, batch in _wanted(day)))
    partial.rename(day.signals / "go")
    results, taken = day.signals / "models.jsonl", 0
    while day.left_s() > 1:
        ended = (day.signals / "done").exists() or not peers_run(day)
        text = results.read_text() if results.exists() else ""
        lines = text[:text.rfind("\n") + 1].splitlines()
        for line in lines[taken:]:
            _take(day, json.loads(line))
        taken = len(lines)
        if ended:
            break
        time.sleep(0.05)
    day.check("PyTorch's side came to its end", (day.signals / "done").exists())


def _take(day, entry):
    name = f"peer {entry['preset']} {entry['batch']} {entry['how']}"
    if entry["images_per_s"] is None:  # too large for PyTorch: told, not a failure of ours
        day.check(name, True, entry["why"])
        return
    day.figure(f"{name}: rate", entry["images_per_s"], "images/s")
    day.figure(f"{name}: peak memory", entry["peak_mib"], "MiB")
    mine = day.measured().get(f"step {entry['preset']} {entry['batch']}: rate")
    if mine:
        aimed = entry["preset"] == "vit_small" and entry["how"] == "timm compiled"
        day.figure(f"ours over {name}", round(mine / entry["images_per_s"], 3), "x", ">= 1.3" if aimed else None)
