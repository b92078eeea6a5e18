"""Runs the plan: each step a process with its own time limit, none started late, all ended in time."""
import dataclasses
import sys
import time

from . import processes, records

GRACE_S = 4  # kept at the end for stopping what still runs, and for the table


@dataclasses.dataclass
class Running:
    row: object
    process: object
    begin_s: float
    limit_s: float


class Runner:
    """`options`: those of tests/gpu/first_contact; `say`: where a line of progress goes."""

    def __init__(self, options, plan, say):
        self.options, self.plan, self.say = options, plan, say
        self.background = []
        self.log = open(f"{options.out}/log.txt", "ab")  # closed by the end of the program

    def elapsed_s(self):
        return time.time() - self.options.begin_s

    def report(self, row, status, seconds, limit_s, why=""):
        records.Records(f"{self.options.out}/results.jsonl", self.options.begin_s,
                        row.name).write("step", status=status, seconds=round(seconds, 1), limit_s=round(limit_s, 1),
                                        answers=row.answers, why=why)
        self.say(f"{self.elapsed_s():6.1f} s  {row.name:10} {status:12} {seconds:6.1f} s  {why}")

    def start(self, row):
        left = self.options.budget - GRACE_S - self.elapsed_s()
        limit_s = left if row.background else min(self.options.limits.get(row.name, row.limit_s), left)
        command = [
            sys.executable, *self.options.again, "--run-step", row.name, "--step-deadline", f"{time.time() + limit_s}"
        ]
        return Running(row, processes.start(command, self.log), time.time(), limit_s)

    def finish(self, running):
        """Reports a step that has ended or is past its limit; false while it may go on."""
        status, seconds = running.process.poll(), time.time() - running.begin_s
        if status is None and seconds < running.limit_s:
            return False
        if status is None:
            processes.end(running.process)
            self.report(running.row, "timed out", seconds, running.limit_s,
                        "stopped at its limit; figures until then are kept")
        elif status == 0:
            self.report(running.row, "ok", seconds, running.limit_s)
        else:
            wrong = [
                line["name"] for line in records.read(f"{self.options.out}/results.jsonl")
                if line["step"] == running.row.name and line["record"] == "check" and not line["ok"]
            ]
            self.report(running.row, "failed", seconds, running.limit_s, "; ".join(wrong[:3]) or
                        f"status {status}: see log.txt")
        return True

    def wait(self, group):
        while group:
            group = [running for running in group if not self.finish(running)]
            time.sleep(0.02)

    def run(self):
        """Rows that say `beside` run together with those before them."""
        group = []
        for row in self.plan:
            if not row.beside:
                self.wait(group)
                group = []
            if self.elapsed_s() > self.options.stop_starting:
                self.report(row, "not started", 0, row.limit_s, f"{self.options.stop_starting:.0f} s were over")
            elif row.background:
                self.background.append(self.start(row))
            else:
                group.append(self.start(row))
        self.wait(group)
        for running in self.background:
            if not self.finish(running):
                processes.end(running.process)
                self.report(running.row, "stopped", time.time() - running.begin_s, running.limit_s, "the day was over")
