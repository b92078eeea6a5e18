# What happens at which step, and what a step's records say: evaluations, checkpoints, logged steps, times, sums over ranks.
load helpers
setup_file() { make_datasets; }
setup() {
    cd "$BATS_TEST_TMPDIR" || return 1
    write_config config.yaml
}

attribute() { /usr/bin/python3 -c 'import sys, h5py; print(h5py.File(sys.argv[1]).attrs[sys.argv[2]])' "$1" "$2"; }
evaluated() { json "$1/metrics.jsonl" '[x["step"] for x in d if "split" in x]'; }
saved() { (cd "$1/checkpoints" && ls step_*) | tr '\n' ' '; }

@test "an epoch ends with the step that takes its last image, whether or not a batch ends there" {
    # 240 images in batches of 32: 7.5, 15, 22.5 and 30 steps
    ranks 2 quest-train config.yaml --set train.batch_size=32 --set checkpoint.every=0 --set checkpoint.keep=100 \
        --set train.eval_every=0 --out run
    [ "$(evaluated run)" = "[8, 15, 23, 30]" ]
    [ "$(saved run)" = "$(printf 'step_%08d.h5 ' 8 15 23 30)" ]
    [ "$(json run/metrics.jsonl '[round(x["epoch"] * 7.5, 3) for x in d if "grad_norm" in x] == list(range(1, 31))')" = True ]
}

@test "the end is evaluated, saved and logged though no interval ends there; the first step is logged too" {
    quest-train config.yaml --set train.steps=12 --set log.every=5 --set norms.every=4 --set train.eval_every=7 \
        --set checkpoint.every=5 --set checkpoint.keep=100 --out run
    [ "$(evaluated run)" = "[7, 12]" ]
    [[ "$(saved run)" = *"step_00000005.h5 "*"step_00000010.h5 step_00000012.h5 " ]]
    [ "$(json run/metrics.jsonl '[x["step"] for x in d if "grad_norm" in x]')" = "[1, 5, 10, 12]" ]
    [ "$(json run/norms.jsonl '[x["step"] for x in d if x["layer"] == 1]')" = "[1, 4, 8, 12]" ]
    quest-train config.yaml --set train.steps=11 --set log.every=10 --set norms.every=10 --out eleven
    [ "$(json eleven/norms.jsonl '[x["step"] for x in d if x["layer"] == 0]')" = "[1, 10, 11]" ]
    # a stop before the end is none
    quest-train config.yaml --set log.every=5 --set norms.every=5 --set train.eval_every=20 --out stopped --max-steps 7
    [ "$(json stopped/metrics.jsonl '[x["step"] for x in d]')" = "[1, 5]" ]
    [ "$(json stopped/norms.jsonl '[x["step"] for x in d if x["layer"] == 0]')" = "[1, 5]" ]
}

@test "a step's learning rate is the schedule's" {
    quest-train config.yaml --set optim.min_lr=1e-4 --out run
    /usr/bin/python3 - <<'PYTHON'
import json, math
for line in map(json.loads, open("run/metrics.jsonl")):
    if "grad_norm" in line:
        step = line["step"]
        expected = 1e-3 * step / 5 if step <= 5 else 1e-4 + 9e-4 * 0.5 * (1 + math.cos(math.pi * (step - 6) / 25))
        assert abs(line["lr"] - expected) < 1e-8, line
PYTHON
}

@test "times are of one step and one rank, however many of them a line stands for" {
    # Large images make the loader slow, so that most of a step is waiting. No checkpoint: writing one is part of no step.
    cp "$BATS_FILE_TMPDIR/train.h5" large.h5
    edit_h5 large.h5 'x = np.zeros((24, 1000, 1000, 3), np.uint8); l = f["labels"][:24]
for name, values in (("images", x), ("labels", l)):
    del f[name]
    f.create_dataset(name, data=values)'
    for n in 1 2 3; do
        ranks $n quest-train config.yaml --set data.train=large.h5 --set data.workers=1 --set data.prefetch=1 \
            --set data.augment.crop_padding=0 --set checkpoint.every=100 --set log.every=5 --set train.steps=15 --out run$n
    done
    quest-train config.yaml --set data.train=large.h5 --set data.workers=1 --set data.prefetch=1 --set checkpoint.every=100 \
        --set data.augment.crop_padding=0 --set log.every=1 --set train.steps=9 --out each
    /usr/bin/python3 - <<'PYTHON'
import json
for ranks in (1, 2, 3):
    lines = [json.loads(line) for line in open(f"run{ranks}/metrics.jsonl")]
    lines = [line for line in lines if "grad_norm" in line]
    print(*[(x["step_time_s"], x["data_wait_s"], x["comm_wait_s"]) for x in lines], sep="\n")
    assert [line["step"] for line in lines] == [1, 5, 10, 15]
    for before, line in zip(lines, lines[1:]):
        step_s = line["step_time_s"]
        assert abs(line["images_per_s"] * step_s / 24 - 1) < 1e-6, line
        assert 0 <= line["data_wait_s"] and 0 <= line["comm_wait_s"]
        assert line["data_wait_s"] + line["comm_wait_s"] <= 1.02 * step_s, line
        passed_s = line["time"] - before["time"]
        steps_s = (line["step"] - before["step"]) * step_s
        assert 0.7 * passed_s - 0.01 <= steps_s <= 1.2 * passed_s + 0.05, (line, passed_s)
    share = sum(x["data_wait_s"] for x in lines[1:]) / sum(x["step_time_s"] for x in lines[1:])
    print(ranks, share)
    assert share > (0.5 if ranks == 1 else 0.05), share
lines = [json.loads(line) for line in open("each/metrics.jsonl")][:8] # before the last, which is evaluated too
said, passed = sum(x["step_time_s"] for x in lines[1:]), lines[-1]["time"] - lines[0]["time"]
assert 0.8 * passed < said < 1.2 * passed + 0.05, (said, passed)
PYTHON
}

@test "loss, top-1 and gradient norm of a step are those of all its images, on any number of ranks and micro-steps" {
    ranks 1 quest-train config.yaml --set optim.lr=5e-3 --out one
    ranks 2 quest-train config.yaml --set optim.lr=5e-3 --set train.accumulate=3 --out two
    /usr/bin/python3 - <<'PYTHON'
import json
one, two = ([json.loads(line) for line in open(f"{run}/metrics.jsonl")] for run in ("one", "two"))
one, two = ([line for line in lines if "grad_norm" in line] for lines in (one, two))
assert sum(x["top1"] for x in one) > 2, one
for a, b in zip(one, two, strict=True):
    assert abs(a["loss"] - b["loss"]) < 1e-3 * a["loss"] and abs(a["grad_norm"] - b["grad_norm"]) < 1e-2 * a["grad_norm"], (a, b)
    assert abs(a["top1"] * 24 - round(a["top1"] * 24)) < 1e-6 and abs(a["top1"] - b["top1"]) < 1.5 / 24, (a, b)
assert abs(sum(x["top1"] for x in one) - sum(x["top1"] for x in two)) < 3.5 / 24
one, two = ({(x["step"], x["layer"]): x["qkv_grad_norm"] for x in map(json.loads, open(f"{run}/norms.jsonl"))} for run in ("one", "two"))
assert one.keys() == two.keys() and {layer for _, layer in one} == {0, 1}
for place, norm in one.items():
    assert norm > 0 and abs(norm - two[place]) < 2e-2 * norm, (place, norm, two[place])
PYTHON
}

@test "gradients in many buckets are summed as in one, in float32 and in bfloat16" {
    ranks 1 quest-train config.yaml --out whole
    ranks 2 quest-train config.yaml --set comm.bucket_mib=0.01 --out buckets2
    ranks 4 quest-train config.yaml --set comm.bucket_mib=0.01 --set train.accumulate=2 --out buckets4
    ranks 2 quest-train config.yaml --set comm.bucket_mib=0.01 --set comm.dtype=bf16 --out half
    losses_agree buckets2 whole 1e-4 30
    losses_agree buckets4 whole 1e-4 30
    losses_agree half whole 1e-2 30
    /usr/bin/python3 - <<'PYTHON'
import h5py, numpy as np
def moments(run):
    with h5py.File(f"{run}/checkpoints/step_00000010.h5") as f: return {name: f["adamw/m"][name][...] for name in f["adamw/m"]}
whole = moments("whole")
for run, most in (("buckets2", 1e-3), ("buckets4", 1e-3), ("half", 5e-2)):
    for name, m in moments(run).items(): # every tensor: the loss hardly feels a bucket that is wrong
        off = np.linalg.norm(m - whole[name]) / np.linalg.norm(whole[name])
        assert off < most or name.endswith("qkv.bias"), (run, name, off)
PYTHON
}

@test "a damaged image changes nothing in an evaluation's sums, on one rank and on two" {
    make_photos
    quest-data import-folder photos --out whole.h5 --encoding jpeg --size 16
    cp whole.h5 damaged.h5
    edit_h5 damaged.h5 'o = f["jpeg/offsets"][...]; f["jpeg/bytes"][int(o[5]) : int(o[6])] = 0'
    cp whole.h5 without.h5
    edit_h5 without.h5 '
o, b, labels = f["jpeg/offsets"][...], f["jpeg/bytes"][...], f["labels"][...]
new = {"jpeg/offsets": np.concatenate([o[:6], o[7:] - (o[6] - o[5])]), "jpeg/bytes": np.concatenate([b[: o[5]], b[o[6] :]]),
       "labels": np.delete(labels, 5)}
for name, values in new.items():
    del f[name]
    f.create_dataset(name, data=values)'
    for n in 1 2; do
        for val in damaged without; do
            ranks $n quest-train config.yaml --set data.train=whole.h5 --set data.val=$val.h5 --set train.eval_every=2 --out $val$n --max-steps 2
        done
        numbers() { json "$1/metrics.jsonl" '[(round(x["top1"] * 47, 4), round(x["top5"] * 47, 4), x["images"]) for x in d if "split" in x]'; }
        loss() { json "$1/metrics.jsonl" '[x["loss"] for x in d if "split" in x][0]'; }
        echo "$(numbers damaged$n), $(loss damaged$n), without: $(loss without$n)"
        [ "$(numbers damaged$n)" = "$(numbers without$n)" ]
        awk "BEGIN { d = $(loss damaged$n) / $(loss without$n) - 1; exit !(d < 1e-5 && d > -1e-5) }"
    done
}

@test "the best evaluation outlives a resume: a worse one moves nothing" {
    evaluating=(--set train.eval_every=10 --set checkpoint.every=5)
    quest-train config.yaml "${evaluating[@]}" --out run --max-steps 10
    [ "$(readlink run/checkpoints/best.h5)" = step_00000010.h5 ]
    # Nothing is as good as this; the last 32 bytes are the seal.
    truncate -s -32 run/checkpoints/step_00000010.h5
    edit_h5 run/checkpoints/step_00000010.h5 'f.attrs["best_top1"] = 0.99'
    ranks 2 quest-train config.yaml "${evaluating[@]}" --out run --resume
    [ "$(evaluated run)" = "[10, 20, 30]" ]
    [ "$(readlink run/checkpoints/best.h5)" = step_00000010.h5 ]
    [ -e run/checkpoints/step_00000010.h5 ]
    for step in 15 20 25 30; do
        [ ! -e run/checkpoints/step_000000$step.h5 ] || [ "$(attribute run/checkpoints/step_000000$step.h5 best_top1)" = 0.99 ]
    done
    [ -e run/checkpoints/step_00000030.h5 ]
}

@test "a best model that could not be saved is not the best: the mark and best_top1 are of a file that is there" {
    evaluating=(--set train.eval_every=1 --set checkpoint.every=1 --set checkpoint.keep=100 --set optim.lr=5e-3)
    quest-train config.yaml "${evaluating[@]}" --out reference
    best=$(readlink reference/checkpoints/best.h5)
    [ "$best" != step_00000001.h5 ]
    quest-train config.yaml "${evaluating[@]}" --out run --max-steps 1
    mkdir "run/checkpoints/$best.new" # in the way of this one checkpoint
    quest-train config.yaml "${evaluating[@]}" --out run --resume 2>warnings
    cat warnings
    [ "$(grep -c '^warning: no checkpoint of step' warnings)" = 1 ]
    [ ! -e "run/checkpoints/$best" ]
    [ "$(json run/events.jsonl '[x["step"] for x in d if x["kind"] == "checkpoint_failed"]')" = "[$((10#$(tr -dc 0-9 <<<"${best%.h5}")))]" ]
    marked=$(readlink run/checkpoints/best.h5)
    echo "best $best, marked $marked"
    [ -e "run/checkpoints/$marked" ]
    step=$((10#$(tr -dc 0-9 <<<"${marked%.h5}")))
    [ "$(json run/metrics.jsonl "[x['top1'] for x in d if 'split' in x and x['step'] == $step][0]")" = \
        "$(attribute run/checkpoints/step_00000030.h5 best_top1 | xargs printf '%.9g')" ]
}
