"""Step profile: Nsight Compute on the kernels of one warm block, forward and backward, of a training step."""
import csv
import io

from .day import Day

SECTIONS = ("SpeedOfLight", "MemoryWorkloadAnalysis", "WarpStateStats", "Occupancy")
# Kernels to skip in the range, so that a block in the middle comes: about 10 a block forward, 20 backward.
RANGES = {"forward": ("timed forward/", 45, 14), "backward": ("timed backward/", 90, 26)}
METRICS = {
    "time": "gpu__time_duration.sum",
    "memory": "gpu__dram_throughput.avg.pct_of_peak_sustained_elapsed",
    "compute": "sm__throughput.avg.pct_of_peak_sustained_elapsed"
}
TO_US = {"nsecond": 1e-3, "ns": 1e-3, "usecond": 1.0, "us": 1.0, "msecond": 1e3, "ms": 1e3}


def kernels(text):
    """Rows of ncu's raw CSV page: (name, microseconds, % of memory's peak, % of the multiprocessors')."""
    lines = [line for line in text.splitlines() if line.startswith('"')]
    rows = list(csv.DictReader(io.StringIO("\n".join(lines))))
    if not rows:
        return []
    units, found = rows[0], []
    for row in rows[1:]:  # the first holds units
        if METRICS["time"] not in row:
            continue
        number = {name: float((row.get(metric) or "nan").replace(",", "")) for name, metric in METRICS.items()}
        found.append((row["Kernel Name"].split("(")[0].split("<")[0].replace("void ", ""),
                      number["time"] * TO_US.get(units[METRICS["time"]], 1.0), number["memory"], number["compute"]))
    return found


def profile(day: Day):
    preset, batch = day.sizes.profile
    for name, (included, skip, count) in RANGES.items():
        report = day.out / f"ncu_{name}.ncu-rep"
        outcome = day.run([
            "ncu", "--clock-control", "none", "--target-processes", "all", "--nvtx", "--nvtx-include", included,
            *(word for section in SECTIONS for word in ("--section", section)), "--launch-skip", skip, "--launch-count",
            count, "--force-overwrite", "--export", report,
            *day.bench("step", "--preset", preset, "--batch", batch, "--iterations", 1, "--warmup", 2)
        ])
        if not day.check_run(f"ncu {name}", outcome):
            continue
        page = day.run(["ncu", "--import", report, "--csv", "--page", "raw"])
        with open(day.out / "ncu.csv", "a", encoding="utf-8") as file:
            file.write(page.stdout)
        found = kernels(page.stdout)
        day.check(f"ncu {name}: kernels were seen", found,
                  "" if found else "no kernel in the range: is NVTX in the programs?")
        for index, (kernel, us, memory, compute) in enumerate(found):
            day.figure(f"ncu {name} {index:02d} {kernel}", round(us, 2), "us")
            day.figure(f"ncu {name} {index:02d} {kernel}: memory", memory, "% of peak")
            day.figure(f"ncu {name} {index:02d} {kernel}: compute", compute, "% of peak")
