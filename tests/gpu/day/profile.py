"""Step profile: Nsight Compute on the kernels of one warm block, forward and backward, of a training step."""
import csv
import io
import math
import re

from .day import Day

SECTIONS = ("SpeedOfLight", "MemoryWorkloadAnalysis", "WarpStateStats", "Occupancy")
# Kernels to skip in the range, so that a block in the middle comes: about 10 a block forward, 20 backward.
RANGES = {"forward": ("timed pass/forward", 45, 14), "backward": ("timed pass/backward", 90, 26)}
METRICS = {
    "time": "gpu__time_duration.sum",
    "memory": "gpu__dram_throughput.avg.pct_of_peak_sustained_elapsed",
    "compute": "sm__throughput.avg.pct_of_peak_sustained_elapsed"
}


def short(kernel):
    """Its name without type, namespace, template's and call's arguments."""
    bare = kernel.replace("(anonymous namespace)::", "").removeprefix("void ")
    return re.split("[<(]", bare)[0].strip().replace(":", "_") or kernel[:40]


def number(text):
    """NaN where ncu has none."""
    try:
        return float((text or "").replace(",", ""))
    except ValueError:
        return float("nan")


def kernels(text):
    """Rows of ncu's raw CSV page in base units: (name, {metric: value}), the time in microseconds."""
    lines = [line for line in text.splitlines() if line.startswith('"')]
    rows = list(csv.DictReader(io.StringIO("\n".join(lines))))[1:]  # the first holds units
    found = [(short(row["Kernel Name"]), {
        what: number(row.get(metric))
        for what, metric in METRICS.items()
    }) for row in rows]
    for _, values in found:
        values["time"] /= 1000
    return [(name, values) for name, values in found if math.isfinite(values["time"])]


def profile(day: Day):
    preset, batch = day.sizes.profile
    program = day.bench("step", "--preset", preset, "--batch", batch, "--iterations", 1, "--warmup", 2,
                        "--graph", "off")
    for name, (included, skip, count) in RANGES.items():
        report = day.out / f"ncu_{name}.ncu-rep"
        filters = ["--nvtx", "--nvtx-include", f"{included}/", "--launch-skip", skip, "--launch-count", count]
        sections = [word for section in SECTIONS for word in ("--section", section)]
        outcome = day.run([
            "ncu", "--clock-control", "none", "--target-processes", "all", *filters, *sections, "--force-overwrite",
            "--export", report, *program
        ])
        if not day.check_run(f"ncu {name}", outcome):
            continue
        page = day.run(["ncu", "--import", report, "--csv", "--page", "raw", "--print-units", "base"])
        with open(day.out / "ncu.csv", "a", encoding="utf-8") as file:
            file.write(page.stdout)
        found = kernels(page.stdout)
        day.check(f"ncu {name}: kernels were seen", found, "" if found else "no kernel in the range, or no time of one")
        for index, (kernel, values) in enumerate(found):
            day.figure(f"ncu {name} {index:02d} {kernel}", round(values["time"], 2), "us")
            for what in ("memory", "compute"):
                if math.isfinite(values[what]):
                    day.figure(f"ncu {name} {index:02d} {kernel}: {what}", values[what], "% of peak")
