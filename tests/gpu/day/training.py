"""Step training: losses beside the CPU's recorded curve, the same bytes twice, and from the CPU to the GPU half-way."""
import hashlib
import json
import shutil

from .day import Day


def losses(run):
    """{step: loss} of a run's metrics.jsonl."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if "grad_norm" in line}


def distance(run, curve):
    """Largest relative difference from the recorded losses; infinite where steps are missing."""
    found, expected = losses(run), losses(curve)
    if found.keys() != expected.keys():
        return float("inf")
    return max(abs(found[step] - expected[step]) / abs(expected[step]) for step in expected)


def train(day, run, out, *arguments, device="cuda"):
    if "--resume" not in arguments:
        shutil.rmtree(day.work / out, ignore_errors=True)  # the step may run again
    config = day.carried / "curves" / run.name / "config.yaml"
    return day.check_run(out,
                         day.run(day.program("train", config, "--device", device, "--out", day.work / out, *arguments)))


def checkpoint(day, run, out):
    return (day.work / out / "checkpoints" / f"step_{run.steps:08d}.h5").read_bytes()


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
        curve = day.carried / "curves" / run.name
        for precision, limit in run.precisions.items():
            name = f"{run.name} {precision}"
            if not all(
                    train(day, run, f"{name} {time}".replace(" ", "_"), "--set", f"train.precision={precision}")
                    for time in (1, 2)):
                continue
            day.figure(f"{name}: loss beside the CPU's", distance(day.work / f"{run.name}_{precision}_1", curve),
                       "relative", f"<= {limit:g}")
            same = checkpoint(day, run, f"{run.name}_{precision}_1") == checkpoint(day, run,
                                                                                   f"{run.name}_{precision}_2")
            day.check(f"{name}: the same checkpoint twice, byte for byte", same)
    run = day.sizes.runs[0]
    if train(day, run, "resumed", "--max-steps", day.sizes.resume_at, device="cpu") and train(
            day, run, "resumed", "--resume"):
        day.figure("resumed CPU to GPU: loss beside the CPU's",
                   distance(day.work / "resumed", day.carried / "curves" / run.name), "relative",
                   f"<= {run.precisions['fp32']:g}")
