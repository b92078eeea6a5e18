"""Step ceilings: what this card can do at best, which the others are measured against."""
import json
import time

from . import step_speed
from .day import Day

EXPECTED_COPY_GB_PER_S = 3000.0  # an H100's, where nothing was measured


def copy_gb_per_s(day):
    return day.measured().get("copy", EXPECTED_COPY_GB_PER_S)


def wait_for_quiet(day, longest_s):
    """PyTorch's side was told when to be done; what it still compiles would disturb the timings."""
    end = time.time() + longest_s
    while time.time() < end and not _quiet(day):
        time.sleep(0.05)
    day.check("PyTorch's side is quiet", _quiet(day))


def _quiet(day):
    return (day.signals / "idle").exists() or not step_speed.peers_run(day)


def ceilings(day: Day):
    wait_for_quiet(day, 20)
    outcome = day.run(day.program("ceilings", day.sizes.copy_mib))
    if day.check_run("ceilings", outcome):
        for line in outcome.stdout.splitlines():
            entry = json.loads(line)
            day.figure(entry["name"], entry["value"], entry["unit"])
    ours = day.json_of("gemm", day.run(day.bench("gemm", "--size", day.sizes.product)))
    if ours:
        day.figure("product", float(f"{ours['gflops'] / 1000:.4g}"), "TFLOP/s")
    theirs = day.run_peers("product", "--size", day.sizes.product)
    if day.check_run("PyTorch's product", theirs):
        day.figure("product, PyTorch", json.loads(theirs.stdout.splitlines()[-1])["value"], "TFLOP/s")
