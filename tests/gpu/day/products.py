"""Step products: what cuBLASLt does for the shapes of a step, and what tuning gains."""
import re

from .day import Day


def _algorithms(day, log):
    """Distinct lines of the library's log that say what was run; as many as cuBLASLt logs."""
    try:
        text = (day.out / log).read_text(errors="replace")
    except OSError:
        return 0
    return len(set(re.findall(r"algoId=\d+[^\n]*", text)))


def products(day: Day):
    preset, batch = day.sizes.profile
    command = day.bench("step", "--preset", preset, "--batch", batch, "--iterations", 1, "--warmup", 0)
    logged = day.run(
        command, environment=day.environment(CUBLASLT_LOG_LEVEL="5", CUBLASLT_LOG_FILE=str(day.out / "cublaslt.txt")))
    if day.check_run(f"{preset} {batch} with cuBLASLt's log", logged):
        day.figure(f"products {preset} {batch}: algorithms that cuBLASLt logged", _algorithms(day, "cublaslt.txt"), "")
