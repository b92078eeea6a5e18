"""What a step is given: where things are, how to start programs, where to say what came of it."""
import collections
import concurrent.futures
import glob
import json
import os
import pathlib
import shlex
import subprocess
import sys
import threading
import time

from . import processes, records, sizes

ROOT = pathlib.Path(__file__).resolve().parents[3]
Outcome = collections.namedtuple("Outcome", "command status stdout stderr seconds")


class Day:
    """`options`: those of tests/gpu/first_contact. `step`: the name under which it writes; `deadline_s`: when, by
    time.time(), the step is stopped."""

    def __init__(self, options, step="", deadline_s=float("inf")):
        self.options, self.step, self.deadline_s = options, step, deadline_s
        self.sizes = sizes.NAMED[options.sizes]
        self.out, self.carried, self.work = (pathlib.Path(path).resolve()
                                             for path in (options.out, options.carried, options.work))
        self.signals = self.work / "signals"
        self.results = self.out / "results.jsonl"
        self.records = records.Records(self.results, options.begin_s, step)
        self.check, self.figure = self.records.check, self.records.figure

    # ---- where things are ----

    @property
    def bundle(self):
        """The unpacked archive; its programs set their own paths."""
        found = sorted(self.work.glob("quest-train-*"))
        return found[0] if found else self.work / "quest-train"

    def program(self, name, *arguments):
        return [str(self.bundle / "bin" / f"quest-{name}"), *map(str, arguments)]

    def bench(self, part, *arguments):
        """A quest-bench in bfloat16 on the GPU, which prints one JSON object."""
        return self.program("bench", part, *arguments, "--precision", "bf16", "--device", "cuda", "--json")

    def peers(self, *arguments):
        """PyTorch's side: tests/gpu/peers, or what stands in for it. It finds its libraries by itself."""
        return [*shlex.split(self.options.peers), *map(str, arguments)]

    def run_peers(self, *arguments):
        return self.run(self.peers(*arguments), environment=dict(os.environ))

    def environment(self, **more):
        """Of our programs: cuBLAS and NCCL come from Python's packages where the toolkit has none."""
        environment = {**os.environ, "QUEST_BIN": str(self.bundle / "bin"), "NCCL_SOCKET_IFNAME": "lo", **more}
        folders = [environment.get("LD_LIBRARY_PATH", ""), *library_folders()]
        environment["LD_LIBRARY_PATH"] = ":".join(filter(None, folders))
        return environment

    def offers(self, part, option):
        """Whether this build's quest-bench has the option."""
        return option in self.run(self.program("bench", part, "--help")).stdout

    # ---- starting programs ----

    def left_s(self):
        return max(0.0, self.deadline_s - time.time())

    def run(self, command, limit_s=None, environment=None, cwd=None):
        """Never raises: a program that cannot be started or takes too long has a status that is no number."""
        limit_s, begin = min(limit_s or 1e9, max(1.0, self.left_s() - 1)), time.time()
        command, stdout, stderr = [str(word) for word in command], "", ""
        try:
            process = processes.start(command, subprocess.PIPE, subprocess.PIPE, env=environment or self.environment(),
                                      cwd=cwd or self.work, text=True, errors="replace")
        except OSError as error:
            outcome = Outcome(command, str(error), "", "", 0.0)
        else:
            try:
                stdout, stderr = process.communicate(timeout=limit_s)
                status = process.returncode
            except subprocess.TimeoutExpired:
                processes.end(process)
                stdout, stderr = process.communicate()
                status = f"stopped after {limit_s:.0f} s"
            outcome = Outcome(command, status, stdout, stderr, time.time() - begin)
        self.log(outcome)
        return outcome

    def run_all(self, commands, at_once, limit_s=None):
        """Several at a time; outcomes in the order of the commands."""
        with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
            return list(pool.map(lambda command: self.run(command, limit_s), commands))

    def log(self, outcome):
        """The whole output, for reading afterwards; one write, as steps may run beside each other."""
        head = f"\n==== {self.step}: {shlex.join(outcome.command)}\n"
        text = f"{head}---- status {outcome.status}, {outcome.seconds:.1f} s\n{outcome.stdout}{outcome.stderr}"
        with open(self.out / "log.txt", "a", encoding="utf-8") as file:
            file.write(text[:400_000])

    def check_run(self, name, outcome):
        """A check that the program ended well; what it said last tells why not."""
        self.check(name, outcome.status == 0, "" if outcome.status == 0 else reason(outcome))
        return outcome.status == 0

    def json_of(self, name, outcome):
        """The object that a quest-bench printed, None and a failed check where it did not."""
        if self.check_run(name, outcome):
            try:
                return json.loads(outcome.stdout.strip().splitlines()[-1])
            except (ValueError, IndexError):
                self.check(f"{name}: its line is JSON", False, outcome.stdout[-200:])
        return None

    def measured(self):
        """Figures of this day so far, also of other steps."""
        return records.figures(self.results)


def reason(outcome):
    """The line that tells most: our programs' error, else the last."""
    lines = [line for line in (outcome.stdout + "\n" + outcome.stderr).splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("error:", "not ok", "========= Error", "========= ERROR"))]
    return f"status {outcome.status}: {(errors or lines or ['it said nothing'])[-1][:300]}"


def library_folders():
    """Folders of Python's packages that hold NVIDIA's libraries."""
    patterns = [os.path.join(path, "nvidia", "*", "lib") for path in sys.path if path.endswith("-packages")]
    return [
        folder for pattern in patterns for folder in sorted(glob.glob(pattern))
        if glob.glob(os.path.join(folder, "libcublas.so.*")) or glob.glob(os.path.join(folder, "libnccl.so.*"))
    ]


class MemoryWatch:
    """The GPU's used memory while something runs, in MiB, as nvidia-smi tells it every 100 ms."""

    def __init__(self):
        self.peak_mib = 0.0
        self._process = None

    def __enter__(self):
        command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "-lms", "100"]
        try:
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        except OSError:
            return self
        threading.Thread(target=self._read, daemon=True).start()
        return self

    def _read(self):
        for line in self._process.stdout:
            try:
                self.peak_mib = max(self.peak_mib, float(line.split(",")[0]))
            except ValueError:
                pass

    def __exit__(self, *_):
        if self._process:
            self._process.terminate()
            self._process.wait()
