"""Step products: what cuBLASLt does for the shapes of a step, and what the tuner gains."""
import json
import re

from .day import Day

LOG_BYTES = 8_000_000  # of the library's log that come back


def _log(day, preset, batch):
    """One step with the library's own log, which names every algorithm that is run."""
    path, tuner = day.out / "cublaslt.txt", ["--products", "first"] if day.offers("step", "--products") else []
    command = day.bench("step", "--preset", preset, "--batch", batch, "--iterations", 1, "--warmup", 0, *tuner)
    outcome = day.run(command, environment=day.environment(CUBLASLT_LOG_LEVEL="5", CUBLASLT_LOG_FILE=str(path)))
    if day.check_run(f"{preset} {batch} with cuBLASLt's log", outcome):
        text = path.read_text(errors="replace") if path.exists() else ""
        path.write_text(text[:LOG_BYTES])
        algorithms = len(set(re.findall(r"algoId=\d+[^\n]*", text)))
        day.figure(f"products {preset} {batch}: algorithms that cuBLASLt logged", algorithms, "")


def _plans(day, preset, batch):
    """What each product of a step was chosen to be computed by, and its time beside that of cuBLASLt's first offer."""
    outcome = day.run(day.bench("gemm", "--plans", "--preset", preset, "--batch", batch, "--products", "tuned"))
    if not day.check_run(f"plans of {preset} {batch}", outcome):
        return
    lines = [json.loads(line) for line in outcome.stdout.splitlines() if line.startswith("{")]
    choices = [line["choice"] for line in lines if line["choice"]]
    with open(day.out / "products.jsonl", "a", encoding="utf-8") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    day.check(f"plans of {preset} {batch}: products were listed", choices)
    name = f"products {preset} {batch}"
    timed = [choice for choice in choices if choice["time_us"] and choice["first_us"]]
    if timed:
        first, chosen = (sum(choice[field] for choice in timed) for field in ("first_us", "time_us"))
        day.figure(f"{name}: chosen ones, once each", round(chosen, 1), "us")
        day.figure(f"{name}: first offers over them", round(first / chosen, 3), "x")
    other = sum(choice["way"] != "library" for choice in choices)
    day.figure(f"{name}: that cuBLASLt does in parts or not at all", other, f"of {len(choices)}")
    day.figure(f"{name}: offers that were refused", sum(choice["refused"] for choice in choices), "")


def products(day: Day):
    _log(day, *day.sizes.profile)
    if not day.offers("gemm", "--plans"):
        day.check("quest-bench gemm --plans: this build does not offer it", True)
        return
    for preset in day.sizes.presets:
        _plans(day, preset, max(day.sizes.batches) if preset != "vit_large" else min(day.sizes.batches))
