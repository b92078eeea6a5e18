"""The nearest tests of a file (table `suites`), run one after the other until one fails."""
import fnmatch
import hashlib
import json
import os
import re
import resource
import select
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass

from build_copy import HOME, TREE
from sample import table

# What a suite prints when a test is done, and when it failed; cmocka, TAP (bats) and parity.
DONE = re.compile(rb"^(?:\[       OK \] |ok \d+ |not ok )(.*?)(?: in \d+ms)?(?: # skip.*)?$", re.MULTILINE)
FAILED = re.compile(rb"^(?:\[  FAILED  \] |not ok (?:\d+ )?)(.*?)(?: in \d+ms)?$", re.MULTILINE)
SLACK_S = 10  # for a machine that others use too


def entries_of(file):
    """The tests to run for a file: of every line of the table that it matches, in the table's order."""
    found = []
    for pattern, *entries in table("suites"):
        if fnmatch.fnmatchcase(file, pattern):
            found += entries
    if not found:
        raise SystemExit(f"error: tests/mutation/suites has no line for {file}")
    return list(dict.fromkeys(found))


@dataclass
class Outcome:
    failed: str = ""  # the test that failed, or how it ended
    hung: bool = False
    gaps: tuple = ()  # (test, seconds to its end) for each
    seconds: float = 0.0


class Entry:
    """unit/test_NAME, e2e/NAME, or one of these with :FILTER (e2e: a regular expression of test names, a dot for each
    space); parity, or parity:KIND, one kind of attention on one rank."""

    def __init__(self, text):
        self.text = text
        self.suite, _, self.filter = text.partition(":")
        self.bats = os.path.join("tests", self.suite + ".bats") if self.suite.startswith("e2e/") else None

    def command(self, only=None):
        if self.bats:
            chosen = only or self.filter
            return ["bats", "--tap", "--timing", *(["--filter", chosen] if chosen else []), self.bats]
        if self.suite.startswith("unit/"):
            return ["stdbuf", "-oL", os.path.join("build", "tests", self.suite[5:])]
        return ["tests/parity/run", *(["--ranks", "1", "--kind", self.filter] if self.filter else [])]

    def targets(self, slot):
        """The programs that this runs and that have the mutant in them; none: it cannot see it."""
        if self.suite.startswith("unit/"):
            target = "build/tests/" + self.suite[5:]
            if target not in slot.commands.symbols:
                raise SystemExit(f"error: tests/mutation/suites names {self.suite}, which is not built")
            return [target] if slot.reaches(target) else []
        programs = [target for target in slot.commands.symbols
                    if target.startswith("build/bin/") and slot.reaches(target)]
        if self.bats:
            text = "".join(read(os.path.join(TREE, name)) for name in (self.bats, "tests/e2e/helpers.bash"))
            if "launch/" not in text:
                programs = [target for target in programs if os.path.basename(target) in text]
        else:
            programs = [target for target in programs if os.path.basename(target) in read(f"{TREE}/tests/parity/run")]
        return programs


def read(path):
    with open(path) as text:
        return text.read()


def environment_of(slot, temporary):
    """tests/environment.sh in the slot. TMPDIR is short: Open MPI makes sockets in it."""
    script = ". tests/environment.sh && env -0"
    given = {**os.environ, "QUEST_MUTATION": slot.path, "TMPDIR": temporary, "PYTHONUNBUFFERED": "1"}
    given.pop("QUEST_BIN", None)
    output = subprocess.run(["bash", "-c", script], cwd=slot.path, env=given, check=True, capture_output=True,
                            text=True).stdout
    return dict(line.split("=", 1) for line in output.split("\0") if line)


def limit_resources():
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, 1 << 30))
    resource.setrlimit(resource.RLIMIT_AS, (16 << 30, 16 << 30))


def end_suite(slot, process):
    try:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(1)
    except (ProcessLookupError, subprocess.TimeoutExpired):
        pass
    end_marked(slot)
    process.wait()


def end_marked(slot):
    """All that a suite left: mpirun's ranks are in process groups of their own, but carry the slot's mark."""
    mark = f"QUEST_MUTATION={slot.path}".encode()
    for _ in range(3):
        left = [int(name) for name in os.listdir("/proc") if name.isdigit() and marked(name, mark)]
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        if not left:
            break
        time.sleep(0.05)


def remove(temporary):
    """With the small file systems that the tests of a full disk mount in it, and unmount if they come to their end."""
    for line in read("/proc/mounts").splitlines():
        if line.split()[1].startswith(temporary + "/"):
            subprocess.run(["umount", line.split()[1]], check=False)
    shutil.rmtree(temporary, ignore_errors=True)


def marked(pid, mark):
    try:
        with open(f"/proc/{pid}/environ", "rb") as environment:
            return mark in environment.read().split(b"\0")
    except OSError:
        return False


def run(slot, entry, limits=None, only=None):
    """Runs it to its end or its first failed test. limits: seconds that each test in turn may take."""
    begin = last = time.monotonic()
    temporary = tempfile.mkdtemp(prefix="mutant")
    process = subprocess.Popen(entry.command(only), cwd=slot.path, env=environment_of(slot, temporary),
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               start_new_session=True, preexec_fn=limit_resources)
    tail, gaps, outcome = b"", [], Outcome()
    try:
        while True:
            allowed = None
            if limits:
                limit = max(limits) if only else limits[min(len(gaps), len(limits) - 1)]
                allowed = last + limit - time.monotonic()
            if allowed is not None and (allowed <= 0 or not select.select([process.stdout], [], [], allowed)[0]):
                outcome.failed, outcome.hung = f"no end within {time.monotonic() - last:.0f} s", True
                break
            chunk = os.read(process.stdout.fileno(), 65536)
            if not chunk:
                status = process.wait()
                if status != 0:
                    outcome.failed = f"ended with status {status}"
                break
            *whole, tail = (tail + chunk).split(b"\n")
            tail = tail[-65536:]
            lines = b"\n".join(whole)
            for name in DONE.findall(lines):
                gaps.append((name.decode(errors="replace"), time.monotonic() - last))
                last = time.monotonic()
            failed = FAILED.search(lines)
            if failed:
                outcome.failed = failed.group(1).decode(errors="replace").strip() or "a test"
                break
    finally:
        end_suite(slot, process)
        process.stdout.close()
        remove(temporary)
    outcome.gaps, outcome.seconds = (*gaps, ("", time.monotonic() - last)), time.monotonic() - begin
    return outcome


def run_twice(slot, entry, limits=None):
    """A test of programs that fails must fail again by itself: on a busy machine some fail now and then."""
    outcome = run(slot, entry, limits)
    if not outcome.failed or outcome.hung or not entry.bats:
        return outcome
    again = run(slot, entry, limits, "^" + re.escape(outcome.failed) + "$")
    return outcome if again.failed else run(slot, entry, limits)


class Baselines:
    """How long each entry takes unmutated; measured once for one state of the checkout."""

    def __init__(self):
        self.path = os.path.join(HOME, "baseline.json")
        self.state = hashlib.sha256()
        for folder, folders, names in os.walk(TREE):
            folders[:] = sorted(name for name in folders if os.path.join(folder, name) not in
                                (f"{TREE}/build", f"{TREE}/docs", f"{TREE}/tests/mutation"))
            for name in sorted(names):
                path = os.path.join(folder, name)
                if os.path.isfile(path) and not name.endswith(".pyc"):
                    self.state.update(path.encode() + b"\0")
                    with open(path, "rb") as content:
                        self.state.update(content.read())
        self.gaps, self.lock = {}, threading.Lock()
        if os.path.exists(self.path):
            known = json.loads(read(self.path))
            if known["state"] == self.state.hexdigest():
                self.gaps = known["gaps"]

    def measure(self, slots, texts):
        """Runs each suite once, with all tests that any of the entries takes; one that fails ends everything."""
        filters = {}
        for entry in map(Entry, texts):
            filters.setdefault(entry.suite, set()).add(entry.filter)
        missing = [suite if "" in chosen or suite == "parity" else f"{suite}:{'|'.join(sorted(chosen))}"
                   for suite, chosen in filters.items()]
        missing = [text for text in missing if text not in self.gaps]
        failures = []

        def work(slot):
            while missing and not failures:
                self.measure_one(slot, missing.pop(0), failures)

        workers = [threading.Thread(target=work, args=(slot,)) for slot in slots]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        if failures:
            raise SystemExit(failures[0])

    def measure_one(self, slot, text, failures):
        outcome = run_twice(slot, Entry(text))
        print(f"unmutated: {text}: {outcome.seconds:.1f} s", flush=True)
        if outcome.failed:
            failures.append(f"error: {text} fails unmutated: {outcome.failed}")
            return
        with self.lock:
            self.gaps[text] = outcome.gaps
            with open(self.path + ".new", "w") as out:
                json.dump({"state": self.state.hexdigest(), "gaps": self.gaps}, out)
            os.rename(self.path + ".new", self.path)

    def limits(self, entry):
        """Three times what it took, and some seconds. The first test's time has the preparations of all in it."""
        gaps = next(gaps for text, gaps in self.gaps.items() if text.split(":")[0] == entry.suite)
        if not entry.bats:
            return [3 * max(seconds for _, seconds in gaps) + SLACK_S]
        tests = [seconds for name, seconds in gaps if name == "" or re.search(entry.filter, name)]
        return [3 * (seconds + gaps[0][1]) + SLACK_S for seconds in tests]
