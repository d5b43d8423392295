#!/usr/bin/env bash
# The paper's training set for a judge, and the judge (section 2.5, appendix B): prompts -> many images each -> GenEval's
# verdicts -> as many right as wrong ones -> NVILA's training file -> fine-tuning of a vision-language model.
#
#   ./recipes/judge-set.sh [FOLDER]
#
# On the built-in world as it stands; about 35 minutes on 2 idle CPU cores. There the model to fine-tune is one that was
# trained for some minutes on renderings with faults, and has seen no sample. With real models (the paper has 15,654 prompts
# and 160 images each; DETECTOR is the absolute path of a folder of `sanactl convert-detector`):
#   MODEL=Efficient-Large-Model/SANA1.5_1.6B_1024px_diffusers WRITE="prompts geneval --split train" PROMPTS=15654 \
#     IMAGES=160 GUIDANCE=4.5 SCORE="--detector mask2former:DETECTOR" VLM=Qwen/Qwen3-VL-2B-Instruct TUNE="--lora 64" \
#     ./recipes/judge-set.sh runs/judge
# What is done is not done again: stop it, and start it again with the same folder.
set -euo pipefail
exec </dev/null
. "$(dirname "$0")/setup.sh"
from_here MODEL VLM

folder=${1:-$root/runs/judge-set}
mkdir -p "$folder" && cd "$folder"
say() { printf '\n== %s\n' "$*" >&2; }
MODEL=${MODEL:-base.st} WRITE=${WRITE:-prompts shapes --split train} SCORE=${SCORE:-}
VLM=${VLM:-renderings} TUNE=${TUNE:---lr 5e-4 -b 32 --epochs 2} WARMUP=${WARMUP:-800} STEPS=${STEPS:-300} POOL=${POOL:-8000}
PROMPTS=${PROMPTS:-300} IMAGES=${IMAGES:-16} GUIDANCE=${GUIDANCE:-1}
kept() { # kept FILE COMMAND...: runs a command whose records become FILE, once
  [ -e "$1" ] && return
  "${@:2}" > "$1.part" && mv "$1.part" "$1"
}

say "prompts that mean no evaluation prompt, and $IMAGES images of each"
# shellcheck disable=SC2086
kept prompts.jsonl sanactl $WRITE -n "$PROMPTS"
[ -e "$MODEL" ] || [ "$MODEL" != base.st ] || sanactl init shapes -o base.st >/dev/null
kept images.jsonl sanactl sample "$MODEL" --prompts prompts.jsonl -n "$IMAGES" --guidance "$GUIDANCE" --seed 2000 -o images

say "GenEval's verdicts, and as many right as wrong images"
# shellcheck disable=SC2086
[ -e verdicts.jsonl ] || sanactl eval geneval images.jsonl $SCORE -o verdicts.jsonl >/dev/null
kept right.jsonl sanactl filter verdicts.jsonl --where correct -o all-right.jsonl -f
kept wrong.jsonl sanactl filter verdicts.jsonl --where 'not correct' -o all-wrong.jsonl -f
rarer=$(wc -l right.jsonl wrong.jsonl | awk '$2 != "total" {print $1}' | sort -n | head -1)
for kind in right wrong; do
  kept "$kind-kept.jsonl" sanactl filter "$kind.jsonl" --sample "$rarer" --seed 0 -o "$kind-sampled.jsonl" -f
done
cat right-kept.jsonl wrong-kept.jsonl > balanced.jsonl
[ -e nvila ] || sanactl export balanced.jsonl --to nvila-json -o nvila >/dev/null

if [ "$VLM" = renderings ] && [ ! -e renderings ]; then
  say "a vision-language model that has seen renderings alone"
  kept renderings.jsonl sanactl train-judge --rendered --warmup-steps "$WARMUP" --steps "$STEPS" --pool-size "$POOL" -o renderings
fi
say "fine-tuning on the set; measured before and after on held-out prompts"
# shellcheck disable=SC2086
kept judge-scores.jsonl sanactl train-judge balanced.jsonl --model "$VLM" $TUNE -o judge
python - <<'PYTHON'
import json

with open("judge-scores.jsonl", encoding="utf-8") as file:
    scores = [record for record in map(json.loads, file) if record["kind"] == "score"]
found = {(s["metric"].removesuffix("_gain"), s["training"]): s for s in scores}
print(f"{'held-out prompts':32}{'before':>22}{'after':>22}{'gain':>24}")
for metric in dict.fromkeys(metric for metric, _ in found):
    cells = []
    for when in ("before", "after", "gain"):
        score = found.get((metric, when), {})
        value, interval = score.get("value"), score.get("ci")
        cells.append("" if value is None else f"{value:.3f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""))
    print(f"{metric:32}{cells[0]:>22}{cells[1]:>22}{cells[2]:>24}")
PYTHON
