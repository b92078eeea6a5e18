"""Step start: unpacks the bundle, and says what machine this is and whether the programs run there."""
import tarfile

from .day import Day


def _missing(day, name):
    """Libraries that the loader does not find for a program, with the paths that its wrapper sets."""
    inside = day.bundle / "lib"
    environment = day.environment()
    environment["LD_LIBRARY_PATH"] += f":{inside / 'cuda'}:/usr/local/cuda/lib64"
    outcome = day.run(["ldd", day.bundle / "libexec" / name], environment=environment)
    return [line.split()[0] for line in outcome.stdout.splitlines() if "not found" in line]


def start(day: Day):
    with tarfile.open(day.carried / "bundle.tar.xz", "r:xz") as archive:
        archive.extractall(day.work)
    programs = sorted(path.name for path in (day.bundle / "libexec").glob("quest-*"))
    day.check("the bundle holds the programs", {"quest-train", "quest-bench", "quest-test-linear"} <= set(programs),
              ", ".join(programs))
    for name in programs:
        missing = _missing(day, name)
        day.check(f"{name}: libraries", not missing, ", ".join(missing))
    day.check_run("nvidia-smi", day.run(["nvidia-smi"]))
    query = "name,driver_version,memory.total,memory.used,clocks.max.sm,clocks.sm,clocks.mem,power.limit"
    outcome = day.run(["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"])
    day.check("the GPU", outcome.status == 0, outcome.stdout.strip())
    for command in (["lscpu"], ["free", "-m"], ["nvidia-smi", "-q", "-d", "CLOCK,PERFORMANCE"]):
        day.run(command)  # for the log
    first = day.run(day.bench("step", "--preset", "vit_tiny", "--batch", 1, "--iterations", 1, "--warmup", 0))
    answer = day.json_of("a first step", first)
    if answer:
        day.figure("seconds to the first step's end", round(first.seconds, 2), "s")
