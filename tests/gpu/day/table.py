"""The table at the end, from results.jsonl alone; short enough for the 12,000 characters of output that come back."""
import re

from . import records


def _rows(title, rows, head):
    """Columns as wide as their widest cell."""
    if not rows:
        return []
    rows = [head, *rows]
    widths = [max(len(str(row[column])) for row in rows) for column in range(len(head))]
    lines = [
        "  ".join(
            str(cell).ljust(width) if column == 0 else str(cell).rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths))).rstrip() for row in rows
    ]
    return ["", title, *lines]


def _steps(lines):
    rows = [(line["step"], line["status"], f"{line['seconds']:.0f}/{line['limit_s']:.0f}", line["why"][:90] or
             line["answers"]) for line in lines if line["record"] == "step"]
    return [
        "", "STEPS: status, seconds of its limit",
        *(f"{name:10}  {status:11}  {seconds:>8}  {text}" for name, status, seconds, text in rows)
    ]


def _wrong(lines):
    wrong = [line for line in lines if line["record"] == "check" and not line["ok"]]
    shown = [f"{line['step']}: {line['name']}: {line['detail'][:160]}" for line in wrong[:20]]
    passed = sum(line["record"] == "check" and line["ok"] for line in lines)
    return ["", f"CHECKS: {passed} right, {len(wrong)} wrong", *shown]


def _attention(figures):
    shapes = dict.fromkeys(match.groups() for name in figures
                           if (match := re.match(r"attention (\d+) (standard|quest) ", name)))
    rows = []
    for tokens, kind in shapes:

        def cell(name):
            us, ratio = figures.get(f"attention {tokens} {kind} {name}"), figures.get(
                f"attention {tokens} {kind} {name} over its floor")
            return f"{us:.0f} ({ratio:.2f})" if us is not None and ratio is not None else "-"

        def peer(backend, what, tokens=tokens):
            us = figures.get(f"attention {tokens} PyTorch {backend} {what}")
            return "-" if us is None else f"{us:.0f}"

        rows.append((f"{tokens} {kind}", *map(cell, ("forward", "statistics", "backward")),
                     *("/".join(peer(backend, what) for backend in ("FLASH", "CUDNN", "EFFICIENT"))
                       for what in ("forward", "backward"))))
    return _rows("ATTENTION: us (times its bytes' floor); PyTorch's FLASH/CUDNN/EFFICIENT forward, backward", rows,
                 ("", "forward", "statistics", "backward", "PyTorch fwd", "PyTorch bwd"))


def _models(figures):
    rows = []
    for preset, batch in dict.fromkeys(match.groups() for name in figures
                                       if (match := re.match(r"step (\w+) (\d+): rate", name))):

        def ours(what, name=f"step {preset} {batch}"):
            return figures.get(f"{name}: {what}", "-")

        peers = [name for name in figures if re.match(rf"ours over peer {preset} {batch} ", name)]
        for peer in peers or [None]:
            how = peer.split(f" {batch} ")[1] if peer else ""
            theirs = f"peer {preset} {batch} {how}"
            rows.append((f"{preset} {batch}", ours("time"), ours("time over its modelled floor"), ours("rate"),
                         ours("peak memory"), ours("peak over plan"), figures.get(f"{theirs}: rate", "-"),
                         figures.get(f"{theirs}: peak memory", "-"), figures.get(peer, "-"), how))
    head = ("", "ms", "over floor", "images/s", "MiB", "over plan", "peer images/s", "peer MiB", "ours/peer", "peer")
    return _rows("STEP, bf16: ours, and the peer at the same batch", rows, head)


def _kernels(figures):
    rows = [(name[4:60], value, figures.get(f"{name}: memory", "-"), figures.get(f"{name}: compute", "-"))
            for name, value in figures.items() if re.match(r"ncu \w+ \d\d [^:]*$", name)]
    return _rows("KERNELS of a warm block (ncu): us, % of memory's peak, % of the multiprocessors'", rows,
                 ("", "us", "memory", "compute"))


def _parity(figures):
    errors = [(match.group(1), match.group(2), value) for name, value in figures.items()
              if (match := re.match(r"parity (\w+): worst (.*)", name))]
    return [
        "", "PARITY with PyTorch in float64, largest relative errors",
        *(f"{precision}: " + ", ".join(f"{what} {value:.1e}" for kind, what, value in errors if kind == precision)
          for precision in dict.fromkeys(error[0] for error in errors))
    ] if errors else []


def _others(lines):
    tabled = re.compile(r"attention \d|step \w+ \d|peer |ours over peer|ncu |parity ")
    rows = [(line["name"], f"{line['value']:.6g}", line["unit"]) for line in lines
            if line["record"] == "figure" and not tabled.match(line["name"])]
    return _rows("OTHER FIGURES", rows, ("", "value", ""))


def _aims(lines):
    """Those that were missed one a line; of the others, which stand in the tables above, the names."""
    aimed = [line for line in lines if line["record"] == "figure" and line["aim"]]
    missed = [(line["name"], f"{line['value']:.4g}", line["aim"], "miss") for line in aimed
              if line["verdict"] == "miss"]
    met = [f"{line['name']} {line['value']:.4g} (aim {line['aim']})" for line in aimed if line["verdict"] == "pass"]
    title = f"AIMS: {len(met)} of {len(aimed)} met"
    return [*(_rows(title, missed, ("", "value", "aim", "")) or ["", title]), *(f"pass: {text}" for text in met)]


def table(path):
    lines = records.read(path)
    figures = records.figures(path)
    return "\n".join([
        *_kernels(figures), *_others(lines), *_parity(figures), *_attention(figures), *_models(figures), *_aims(lines),
        *_wrong(lines), *_steps(lines)
    ])
