"""Step training: losses beside the CPU's recorded curve, the same bytes twice, and from the CPU to the GPU half-way."""
import hashlib
import json
import shutil

from .day import Day


def losses(run):
    """{step: loss} of a run's metrics.jsonl."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if "grad_norm" in line}


def distance(run, curve, steps):
    """Largest relative difference from the recorded losses in the first `steps`; infinite where a step is missing."""
    found, expected = losses(run), losses(curve)
    if found.keys() != expected.keys():
        return float("inf")
    return max(abs(found[step] - expected[step]) / abs(expected[step]) for step in range(1, steps + 1))


def compare(day, run, name, out, limit):
    """The steps that are judged, and all."""
    folder, curve = day.work / out, day.carried / "curves" / run.name
    day.figure(f"{name}: loss beside the CPU's", distance(folder, curve, run.judged), "relative", f"<= {limit:g}")
    day.figure(f"{name}: loss beside the CPU's, all steps", distance(folder, curve, run.steps), "relative")


def train(day, run, out, *arguments, device="cuda", products=None):
    """`products`: a run's choice of algorithms for this new one to take up, without which its bits may be others."""
    folder = day.work / out
    if "--resume" not in arguments:
        shutil.rmtree(folder, ignore_errors=True)  # the step may run again
    if products and products.exists():
        folder.mkdir()
        shutil.copy(products, folder)
    config = day.carried / "curves" / run.name / "config.yaml"
    return day.check_run(out, day.run(day.program("train", config, "--device", device, "--out", folder, *arguments)))


def train_twice(day, run, precision, limit):
    """Beside the curve, and the same bytes again."""
    name, first, second = f"{run.name} {precision}", f"{run.name}_{precision}_1", f"{run.name}_{precision}_2"
    setting = ("--set", f"train.precision={precision}")
    if not train(day, run, first, *setting):
        return
    compare(day, run, name, first, limit)
    if train(day, run, second, *setting, products=day.work / first / "products.jsonl"):
        files = [day.work / out / "checkpoints" / f"step_{run.steps:08d}.h5" for out in (first, second)]
        same = files[0].read_bytes() == files[1].read_bytes()
        day.check(f"{name}: the same checkpoint twice, byte for byte", same)


def draw(day, run):
    """The dataset, the same bytes as where the curve was recorded."""
    path = day.work / f"{run.name}.h5"
    day.check_run(f"{run.name}: data",
                  day.run(day.program("data", "synth", "shapes", *run.data, "--force", "--out", path)))
    recorded = (day.carried / "curves" / run.name / "data.sha256").read_text().strip()
    day.check(f"{run.name}: the data are those of the curve", hashlib.sha256(path.read_bytes()).hexdigest() == recorded)


def training(day: Day):
    for run in day.sizes.runs:
        draw(day, run)
        for precision, limit in run.precisions.items():
            train_twice(day, run, precision, limit)
    run = day.sizes.runs[0]
    if train(day, run, "resumed", "--max-steps", day.sizes.resume_at, device="cpu") and \
            train(day, run, "resumed", "--resume"):
        compare(day, run, "resumed CPU to GPU", "resumed", run.precisions["fp32"])
