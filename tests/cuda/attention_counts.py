#!/usr/bin/python3
"""attention_counts.py GPUSIM ATTENTION_PASS: counts QUEST's and standard attention in the simulator (batch 1, 3 heads,
head_dim 64, bfloat16) and fails where a count is above its limit, which is set by FlashAttention-2's counts in the same
simulator or by what was reached. Prints the table of docs/performance.md, then the same
for head dimensions that are no multiple of 16, whose limit is the next one that is. Ends with "N passed, M failed"."""
import json
import os
import subprocess
import sys
import tempfile

# FlashAttention-2: warp instructions and bytes moved, forward and backward.
PEER = {
    65: ((24801, 0.101e6), (70905, 0.528e6)),
    197: ((80412, 0.458e6), (204429, 1.653e6)),
    257: ((163026, 0.795e6), (397347, 2.826e6)),
    577: ((425577, 2.670e6), (969165, 7.416e6)),
    1025: ((1297548, 7.893e6), (2839749, 20.219e6)),
}

# Backward: at most these instructions, tensor FLOP, bytes and wavefronts, 2 to 5 % above what was reached.
BACKWARD = {
    65: (30000, 14e6, 0.21e6, 10500),
    197: (116000, 88e6, 0.63e6, 51500),
    257: (215000, 149e6, 1.59e6, 84000),
    577: (790000, 699e6, 4.95e6, 362000),
    1025: (2230000, 2150e6, 13.7e6, 1085000),
}

# Warp instructions reached, and a little: standard attention's forward pass, and QUEST's at 197 tokens.
STANDARD = {65: 13000, 197: 54000, 257: 84000, 577: 370000, 1025: 1050000}
FORWARD_197, STATISTICS_197 = 50000, 58500

# A head_dim that kernels fill up, and what it is filled up to: at most so many times the counts of that.
FILLED_UP = {72: 80, 88: 96}
FILLED_UP_LIMIT = 1.15


def compulsory(tokens):
    """Bytes of the forward pass if each input is read once and each output is written once."""
    return 3 * tokens * (4 * 64 * 2 + 4)


def limits(tokens, what):
    """Most warp instructions, tensor FLOP, bytes and shared-memory wavefronts; None is no limit."""
    if what == "backward":
        return BACKWARD[tokens]
    instructions, moved = PEER[tokens][0]
    least = compulsory(tokens)
    if what == "standard":
        return STANDARD[tokens], None, 1.05 * moved, None
    if tokens == 197:
        return {
            "forward": (FORWARD_197, 36e6, 1.08 * least, 18669),
            "statistics": (STATISTICS_197, 36e6, 1.08 * least, 18669),
        }[what]
    if tokens < 500:
        return 0.75 * instructions, None, 1.08 * least, None
    return 1.05 * instructions, None, 1.05 * moved, None


def count(gpusim, program, tokens, what, head_dim=64):
    # One thread runs block after block: none waits for its turn in a loop whose instructions would count.
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "stats.json")
        subprocess.run([gpusim, "--threads", "1", "--stats=" + path, "--", program, str(tokens), what, str(head_dim)],
                       check=True, stdout=subprocess.DEVNULL)
        with open(path) as file:
            kernels = json.load(file)["kernels"]
    name = "attention_backward" if what == "backward" else "attention_forward"
    kernels = [k for k in kernels if name in k["name"]]
    if not kernels:
        raise RuntimeError("the simulator saw no kernel")
    return (
        sum(k["warp_instructions"] for k in kernels),
        sum(k["mma_flops"] for k in kernels),
        32 * sum(k["global_load_sectors"] + k["global_store_sectors"] + k["atomic_sectors"] for k in kernels),
        sum(k["shared_wavefronts"] for k in kernels),
    )


def main():
    gpusim, program = sys.argv[1:3]
    passed = failed = 0
    print(f"{'tokens':>6} {'pass':10} {'instructions':>22} {'tensor MFLOP':>16} {'MB moved':>16} {'wavefronts':>16}")
    for tokens in PEER:
        for what in ("forward", "statistics", "standard", "backward"):
            if what == "statistics" and tokens != 197:
                continue
            counts, most = count(gpusim, program, tokens, what), limits(tokens, what)
            fine = all(limit is None or value <= limit for value, limit in zip(counts, most))
            passed, failed = passed + fine, failed + (not fine)
            cells = [f"{value / unit:.{digits}f} / {'-' if limit is None else f'{limit / unit:.{digits}f}'}"
                     for value, limit, unit, digits in zip(counts, most, (1, 1e6, 1e6, 1), (0, 1, 3, 0))]
            print(f"{tokens:6} {what:10} {cells[0]:>22} {cells[1]:>16} {cells[2]:>16} {cells[3]:>16}"
                  f"{'' if fine else '  FAILED'}")
    print(f"{'head_dim':>8} {'pass':10} {'instructions':>22} {'tensor MFLOP':>16} {'MB moved':>16} {'wavefronts':>16}")
    for head_dim, next_head_dim in FILLED_UP.items():
        for what in ("forward", "statistics", "backward"):
            counts = count(gpusim, program, 197, what, head_dim)
            of_next = count(gpusim, program, 197, what, next_head_dim)
            fine = all(value <= FILLED_UP_LIMIT * limit for value, limit in zip(counts, of_next))
            passed, failed = passed + fine, failed + (not fine)
            cells = [f"{value / unit:.{digits}f} / {next_value / unit:.{digits}f}" for value, next_value, unit, digits
                     in zip(counts, of_next, (1, 1e6, 1e6, 1), (0, 1, 3, 0))]
            print(f"{head_dim:8} {what:10} {cells[0]:>22} {cells[1]:>16} {cells[2]:>16} {cells[3]:>16}"
                  f"{'' if fine else '  FAILED'}")
    print(f"{passed} passed, {failed} failed")
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
