#!/usr/bin/env bash
# Trains a Mask2Former and a CLIP on the built-in world's images, scores with them, and compares with the programmatic detector.
#
#   ./recipes/make-detector.sh [FOLDER]
#
# The official detector's classes, small. Expected on 2 idle CPU cores: samples 20 minutes, CLIP 2, detector 90 (0.36 s a step on
# one core). Every stage can be stopped and started again. Training sees training prompts only. In the environment, PROMPTS to
# train on, HELD kept prompts, STEPS of the detector, POOL, the number of rendered pictures, and EVAL, a file in place of the
# 360 evaluation prompts, change the size: PROMPTS=6 HELD=3 STEPS=2 POOL=40 is a trial, and its numbers mean nothing.
set -euo pipefail
exec </dev/null
. "$(dirname "$0")/setup.sh"
from_here EVAL

folder=${1:-$root/runs/detector}
mkdir -p "$folder" && cd "$folder"
say() { printf '\n== %s\n' "$*" >&2; }
PROMPTS=${PROMPTS:-2200} HELD=${HELD:-100} STEPS=${STEPS:-15000}

say "images of training prompts, drawn by the base; those of the last $HELD prompts are kept from training"
[ -e prompts.jsonl ] || sanactl prompts shapes --split train -n "$((PROMPTS + HELD))" > prompts.jsonl
[ -e base.st ] || sanactl init shapes -o base.st >/dev/null
images() { # images PROMPTS IMAGES NAME: samples in the folder NAME, their records in NAME.jsonl
  [ -e "$3.jsonl" ] && return
  sanactl sample base.st --prompts "$1" -n "$2" -o "$3" > "$3.part" && mv "$3.part" "$3.jsonl"
}
images prompts.jsonl 4 samples
head -n "$((4 * PROMPTS))" samples.jsonl > train.jsonl
tail -n "$((4 * HELD))" samples.jsonl > held.jsonl

say "a CLIP that tells colours, and a Mask2Former that finds what the programmatic detector finds"
[ -d clip ] || sanactl make-shapes clip train.jsonl --world . ${POOL:+--pool-size "$POOL"}
[ -d detector ] || sanactl make-shapes detector train.jsonl --world . --steps "$STEPS" ${POOL:+--pool-size "$POOL"}

say "the same images scored by both detectors, those of evaluation prompts, and rendered pictures"
images "${EVAL:-shapes}" 1 eval
[ -e rendered.jsonl ] || python - <<'PYTHON'
# Pictures that the renderer draws for the evaluation prompts; every second one is of another prompt of its task.
import json, os
import numpy as np
from sanactl.files.images import write_png
from sanactl.shapes.prompts import load_eval_prompts, scene_for
from sanactl.shapes.render import render

prompts = load_eval_prompts()
os.makedirs("rendered", exist_ok=True)
lines = []
for number, prompt in enumerate(prompts):
    others = [p for p in prompts[number + 1 :] + prompts if p["tag"] == prompt["tag"] and p is not prompt]
    drawn = others[0] if number % 2 else prompt
    write_png(render(scene_for(drawn, np.random.default_rng(number)), 64), f"rendered/{number}.png")
    lines.append(json.dumps({"kind": "image", "path": f"rendered/{number}.png", **prompt}))
with open("rendered.jsonl", "w", encoding="utf-8") as file:
    file.write("\n".join(lines) + "\n")
PYTHON
for images in held eval rendered; do
  sanactl eval geneval "$images.jsonl" -o "$images.shapes.jsonl" -f >/dev/null
  sanactl eval geneval "$images.jsonl" --detector mask2former:detector --colors clip --device cpu \
    -o "$images.mask2former.jsonl" -f >/dev/null
  python - "$images" <<'PYTHON'
import json, sys
from collections import defaultdict

def verdicts(detector):
    with open(f"{sys.argv[1]}.{detector}.jsonl", encoding="utf-8") as file:
        return [r for r in map(json.loads, file) if r["kind"] == "image"]

tasks = defaultdict(list)
for one, other in zip(verdicts("shapes"), verdicts("mask2former"), strict=True):
    assert one["path"] == other["path"]
    tasks[one["tag"]].append(one["correct"] == other["correct"])
same = [same for found in tasks.values() for same in found]
print(f"{sys.argv[1]}: the verdicts agree on {sum(same)} of {len(same)} images, {sum(same) / len(same):.1%}")
for task, found in tasks.items():
    print(f"  {task}: {sum(found)} of {len(found)}")
PYTHON
done
