"""Step feeding: the loader alone, and a training from JPEG files to the GPU."""
import json
import shutil

from .day import Day


def feeding(day: Day):
    sizes, photographs = day.sizes, day.work / "photographs.h5"
    shutil.copyfile(day.carried / "photographs.h5", photographs)
    for workers in sizes.workers:
        name = f"loader, JPEG, {workers} workers"
        answer = day.json_of(
            name,
            day.run(
                day.program("bench", "loader", "--data", photographs, "--workers", workers, "--seconds", sizes.loader_s,
                            "--image-size", 32 if sizes.photograph_size < 224 else 224, "--batch",
                            min(64, sizes.photographs // 2), "--json")))
        if answer:
            day.figure(name, round(answer["images_per_s"]), "images/s")
    shutil.rmtree(day.work / "fed", ignore_errors=True)  # the step may run again
    (day.work / "feed.yaml").write_text(sizes.feed_config)
    if day.check_run(
            "training from JPEG",
            day.run(day.program("train", day.work / "feed.yaml", "--device", "cuda", "--out", day.work / "fed"))):
        steps = [json.loads(line) for line in (day.work / "fed" / "metrics.jsonl").read_text().splitlines()]
        steps = [line for line in steps if "grad_norm" in line]
        warm = steps[len(steps) // 2:]  # the first steps load kernels
        day.check("training from JPEG: it logged its last step", steps[-1]["step"] == sizes.feed_steps)
        day.figure("training from JPEG: rate", round(sum(line["images_per_s"] for line in warm) / len(warm)),
                   "images/s")
        waited = sum(line["data_wait_s"] for line in warm) / sum(line["step_time_s"] for line in warm)
        day.figure("training from JPEG: share of time waiting for data", round(waited, 3), "")
