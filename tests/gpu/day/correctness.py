"""Steps ops, parity and sanitizer: whether the GPU computes what it should."""
import re
import sys

from .day import ROOT, Day


def ops(day: Day):
    """Each test program compares an op with the CPU's, and its bits with those of a second call."""
    names = sorted(path.name.removeprefix("quest-") for path in (day.bundle / "libexec").glob("quest-test-*"))
    day.check("there are test programs", names)
    runs = [(name, time) for name in names for time in ("first", "second")]
    outcomes = day.run_all([day.program(name) for name, _ in runs], at_once=4)
    for (name, time), outcome in zip(runs, outcomes):
        day.check_run(f"{name.replace('-', '_')}, {time} time", outcome)


def parity(day: Day):
    runs = [(precision, kind) for precision in ("fp32", "bf16") for kind in day.sizes.parity_kinds]
    outcomes = day.run_all([[
        sys.executable, ROOT / "tests/parity/run", "--device", "cuda", "--precision", precision, "--ranks", "1",
        "--kind", kind
    ] for precision, kind in runs], at_once=4)
    worst = {}
    for (precision, kind), outcome in zip(runs, outcomes):
        day.check_run(f"parity {precision} {kind}", outcome)
        for what, error in re.findall(r"largest relative error of (.*): (\S+)", outcome.stdout):
            worst[precision, what] = max(worst.get((precision, what), 0.0), float(error))
    for (precision, what), error in worst.items():
        day.figure(f"parity {precision}: worst {what}", error, "relative")


def sanitizer(day: Day):
    commands = [[
        "compute-sanitizer", "--tool", tool, "--target-processes", "all", "--error-exitcode", "3",
        *day.program(program, *arguments)
    ] for tool, program, *arguments in day.sizes.sanitizer]
    outcomes = day.run_all(commands, at_once=8)
    for (tool, *what), outcome in zip(day.sizes.sanitizer, outcomes):
        name = " ".join(map(str, (tool, *what)))
        # A sanitizer that refuses the device may still end with 0.
        looked = re.search("(ERROR|RACECHECK) SUMMARY", outcome.stdout + outcome.stderr)
        day.check(name, outcome.status == 0 and looked, "" if outcome.status == 0 and looked else _why(outcome))


def _why(outcome):
    lines = [
        line for line in (outcome.stdout + outcome.stderr).splitlines()
        if line.startswith("=========") and len(line) > 12
    ]
    return f"status {outcome.status}: {' / '.join(lines[:3]) or 'no summary was printed'}"[:300]
