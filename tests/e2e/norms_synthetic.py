#!/usr/bin/python3
"""Writes a made-up run directory: norms_synthetic.py DIR [--diverge] [--steps N] [--every E] [--layers L] [--heads H] [--kind K].

In a diverging run the norms of layer 2, head 1 grow together from step 1500 on, and the loss leaves its trend when that
head's logits pass 30,000: what quest-norms has to find out.
"""
import argparse
import json
import math
import os
import random


def head(step, blow_up):
    ramp = 1 - math.exp(-step / 800)
    query, key = 1 + 5 * ramp, 1 + 4 * ramp
    if blow_up and step > blow_up:
        query, key = (norm * math.exp(min((step - blow_up) / 500, 10)) for norm in (query, key))
    logit = 0.5 * query * key
    return query, key, logit, math.log(65) / (1 + logit * logit / 500)


def norm_record(step, layer, options, draw):
    lists = {name: [] for name in (
        "q_norm_mean", "q_norm_std", "q_norm_min", "q_norm_max", "k_norm_mean", "k_norm_std", "k_norm_min", "k_norm_max",
        "logit_max", "entropy_mean", "entropy_min")}
    for index in range(options.heads):
        blow_up = 1500 if options.diverge and layer == 2 and index == 1 else 0
        query, key, logit, entropy = head(step, blow_up)
        for prefix, norm in (("q", query), ("k", key)):
            norm *= 1 + 0.03 * draw.gauss(0, 1)
            for suffix, factor in (("mean", 1), ("std", 0.2), ("min", 0.5), ("max", 1.8)):
                lists[f"{prefix}_norm_{suffix}"].append(float(f"{norm * factor:.9g}"))
        lists["logit_max"].append(float(f"{logit * (1 + 0.05 * draw.gauss(0, 1)):.9g}"))
        lists["entropy_mean"].append(float(f"{entropy * (1 + 0.01 * draw.gauss(0, 1)):.9g}"))
        lists["entropy_min"].append(float(f"{0.3 * entropy:.9g}"))
    return {"step": step, "layer": layer, **lists, "qkv_grad_norm": 0.5 * math.exp(0.2 * draw.gauss(0, 1))}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("directory")
    parser.add_argument("--diverge", action="store_true")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--heads", type=int, default=3)
    parser.add_argument("--kind", default="standard")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    draw, broke = random.Random(options.seed), 0
    os.makedirs(options.directory, exist_ok=True)
    with open(f"{options.directory}/config.yaml", "w") as out:
        out.write(f"model:\n  image_size: 32\n  patch_size: 4\n  depth: {options.layers}\n  heads: {options.heads}\n"
                  f"attention:\n  kind: {options.kind}\noptim:\n  lr: 1.0e-3\n")
    with open(f"{options.directory}/metrics.jsonl", "w") as metrics, open(f"{options.directory}/norms.jsonl", "w") as norms:
        for step in range(options.every, options.steps + 1, options.every):
            loss, gradient = 0.3 + 4 * math.exp(-step / 900) + 0.03 * draw.gauss(0, 1), math.exp(0.25 * draw.gauss(0, 1))
            if options.diverge and head(step, 1500)[2] > 30000:
                broke = broke or step
                loss, gradient = loss + 0.02 * (step - broke), gradient * 8
            metrics.write(json.dumps({
                "step": step, "epoch": step / 100, "loss": loss, "top1": 0.1, "lr": 1e-3, "grad_norm": gradient,
                "images_per_s": 1000 + 10 * draw.gauss(0, 1), "step_time_s": 0.1, "data_wait_s": 0.001,
                "comm_wait_s": 0.002, "mfu": None, "skipped_images": 0, "time": 1.7e9 + step}) + "\n")
            for layer in range(options.layers):
                norms.write(json.dumps(norm_record(step, layer, options, draw)) + "\n")
    if broke:
        print(f"the loss leaves its trend at step {broke}")


main()
