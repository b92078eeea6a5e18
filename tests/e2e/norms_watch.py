#!/usr/bin/python3
"""Drives quest-norms watch on a terminal of its own: norms_watch.py RUN. The log grows while it is watched."""
import fcntl
import os
import pty
import select
import struct
import sys
import termios
import time


def read_for(terminal, seconds):
    text, end = b"", time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if select.select([terminal], [], [], left)[0]:
            try:
                text += os.read(terminal, 65536)
            except OSError:
                break
    return text.decode(errors="replace")


def main():
    run = sys.argv[1]
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm", LC_ALL="C.UTF-8")
        os.execvp("quest-norms", ["quest-norms", "watch", "--interval", "0.2", run])
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 60, 140, 0, 0))
    first = read_for(terminal, 2)
    for wanted in ("step 4000", "layer 2", "largest logit", "logit_explosion", "▁"):
        assert wanted in first, (wanted, first[-3000:])
    with open(f"{run}/metrics.jsonl", "a") as log:
        log.write('{"step": 4010, "loss": 1.5, "grad_norm": 1, "lr": 0.001, "images_per_s": 900}\n')
    grown = read_for(terminal, 2)
    assert "900" in grown, grown  # only what changed is sent
    os.write(terminal, b"\x1bOB")
    heads = read_for(terminal, 2)
    assert "head 1" in heads, heads
    os.write(terminal, b"q")
    read_for(terminal, 1)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status == 0, status


main()
