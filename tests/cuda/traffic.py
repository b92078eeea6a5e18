#!/usr/bin/python3
"""traffic.py GPUSIM TRAFFIC_PROGRAM...: counts in the simulator what each op moves between the multiprocessors and memory
(32-byte sectors) and fails where that is more than 1.05 times its compulsory bytes. Prints the table of
docs/performance.md; ends with "N passed, M failed"."""
import json
import os
import subprocess
import sys
import tempfile

MOST = 1.05


def count(gpusim, program, op):
    """Compulsory bytes, moved bytes and the kernels of one op."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "stats.json")
        run = subprocess.run([gpusim, "--stats=" + path, "--", program, op], stdout=subprocess.PIPE, check=True)
        with open(path) as file:
            kernels = json.load(file)["kernels"]
    sectors = sum(k["global_load_sectors"] + k["global_store_sectors"] + k["atomic_sectors"] for k in kernels)
    if not kernels:
        raise RuntimeError(f"{op}: the simulator saw no kernel")
    return int(run.stdout), 32 * sectors, kernels


def main():
    gpusim, programs = sys.argv[1], sys.argv[2:]
    listed = [(program, subprocess.run([gpusim, "--", program], stdout=subprocess.PIPE, check=True, text=True).stdout)
              for program in programs]
    passed = failed = 0
    print(f"{'op':32} {'compulsory MB':>13} {'moved MB':>9} {'ratio':>6} {'A100 us':>8} {'H100 us':>8}  (modelled)")
    for program, op in ((program, op) for program, ops in listed for op in ops.split()):
        compulsory, moved, kernels = count(gpusim, program, op)
        a100, h100 = (sum(k[f"model_us_{gpu}"] * k["launches"] for k in kernels) for gpu in ("A100", "H100"))
        fine = compulsory <= moved * 1.001 and moved <= MOST * compulsory
        passed, failed = passed + fine, failed + (not fine)
        print(f"{op:32} {compulsory / 1e6:13.2f} {moved / 1e6:9.2f} {moved / compulsory:6.3f} {a100:8.1f} {h100:8.1f}"
              f"{'' if fine else '  FAILED'}")
    print(f"{passed} passed, {failed} failed")
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
