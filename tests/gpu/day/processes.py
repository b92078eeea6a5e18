"""Processes that may hang: started in a session of their own, and ended with all that they started."""
import os
import signal
import subprocess
import time


def start(command, stdout, stderr=subprocess.STDOUT, **more):
    return subprocess.Popen(command, stdout=stdout, stderr=stderr, stdin=subprocess.DEVNULL, start_new_session=True,
                            **more)


def _parents():
    """{process: parent} of all that /proc shows."""
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                    parents[int(name)] = int(file.read().rpartition(")")[2].split()[1])
            except (OSError, ValueError, IndexError):
                pass
    return parents


def runs(pid):
    """Whether it is there and has not ended (nobody may have asked for its status yet)."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def descendants(root):
    """`root` and all below it: some, such as mpirun's ranks, leave their parent's group."""
    parents, found = _parents(), [root]
    for process in found:
        found.extend(child for child, parent in parents.items() if parent == process)
    return found


def end(process):
    """Politely, and half a second later not."""
    family = descendants(process.pid)
    for number in (signal.SIGTERM, signal.SIGKILL):
        for member in family:
            try:
                os.kill(member, number)
            except ProcessLookupError:
                pass
        try:
            process.wait(0.5)
        except subprocess.TimeoutExpired:
            pass
        time.sleep(0.05)
