"""Step limits: NCCL at one rank, and batches at the limit that the memory plan names."""
import json

from . import step_speed
from .day import Day, reason


def nccl_alone(day):
    outcome = day.run(day.program("bench", "allreduce", "--nccl-alone", "--mib", 84, "--json", "--device", "cuda"),
                      limit_s=20)
    if "nccl-alone" in outcome.stderr and outcome.status == 2:
        day.check("NCCL at one rank: this build does not offer it", True, reason(outcome))
    else:
        day.check_run("NCCL at one rank", outcome)
        for line in outcome.stdout.splitlines():
            entry = json.loads(line) if line.startswith("{") else {}
            if "nccl" in entry:
                day.check(f"NCCL at one rank: {entry['nccl']}", entry["result"] == "ok", f"{entry['seconds']} s")


def _step(day, preset, batch):
    return day.run(day.bench("step", "--preset", preset, "--batch", batch, "--iterations", 1, "--warmup", 1))


def _refused(outcome):
    return outcome.status == 2 and outcome.stderr.count("error:") == 1


def limits(day: Day):
    preset = day.sizes.profile[0]
    largest = step_speed.largest_batch(day, preset)
    if largest:
        day.figure(f"{preset}: largest batch by the memory plan", largest, "images")
        day.check_run(f"{preset}: {largest} images, which should just fit", _step(day, preset, largest))
        next_one, over = _step(day, preset, largest + 1), largest + max(2, largest // 50)
        # The plan's share of an image is rounded: one more may fit, but then it must run.
        day.check(f"{preset}: {largest + 1} images run or are refused in one line", next_one.status == 0 or
                  _refused(next_one), reason(next_one))
        outcome = _step(day, preset, over)
        day.check(f"{preset}: {over} images are refused in one line", _refused(outcome), reason(outcome))
    nccl_alone(day)
