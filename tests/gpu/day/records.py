"""The lines of results.jsonl: what steps, checks and figures say, written as they come, so that nothing is lost when a
step is stopped. docs/gpu-day.md lists the fields."""
import json
import math
import os
import time


def meets(value, aim):
    """Of an aim such as "<= 1.3"."""
    relation, limit = aim.split()
    return value <= float(limit) if relation == "<=" else value >= float(limit)


class Records:
    """`begin_s`: when the day began, by time.time(); every line has its distance."""

    def __init__(self, path, begin_s, step):
        self.path, self.begin_s, self.step = path, begin_s, step
        self.failed_checks = []

    def write(self, record, **fields):
        line = {"record": record, "step": self.step, "t_s": round(time.time() - self.begin_s, 2), **fields}
        # One write of one line: steps that run beside each other do not mix.
        handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.write(handle, (json.dumps(line) + "\n").encode())
        os.close(handle)

    def check(self, name, ok, detail=""):
        """Something that is right or wrong; a step with a wrong one has failed."""
        if not ok:
            self.failed_checks.append(name)
        self.write("check", name=name, ok=bool(ok), detail=detail)

    def figure(self, name, value, unit, aim=None):
        """Something measured. `aim`, such as "<= 1.3", is what is hoped for: to miss it is no failure."""
        if not math.isfinite(value):
            self.check(f"{name}: a number", False, str(value))
            return
        verdict = ("pass" if meets(value, aim) else "miss") if aim else None
        self.write("figure", name=name, value=value, unit=unit, aim=aim, verdict=verdict)


def read(path):
    """All lines; one that was cut off by an end in the middle is left out."""
    lines = []
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            for line in file:
                try:
                    lines.append(json.loads(line))
                except ValueError:
                    pass
    return lines


def figures(path):
    """{name: value}; of a name that came twice the last."""
    return {line["name"]: line["value"] for line in read(path) if line["record"] == "figure"}
