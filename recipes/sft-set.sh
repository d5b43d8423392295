#!/usr/bin/env bash
# The paper's supervised fine-tuning set (section 3.3), and what it brings: prompts -> images -> GenEval's verdicts ->
# at most 10 correct images a prompt -> a dataset -> fine-tuning; beside fine-tuning on as many images that nobody filtered.
#
#   ./recipes/sft-set.sh [FOLDER]
#
# The images are drawn without guidance (GUIDANCE=1), as a model's own distribution: fine-tuning on guided images of the
# same model and guiding again overshoots. The paper's came from another model, FLUX.1-schnell, which needs no guidance.
#
# On the built-in world as it stands; about 40 minutes on 2 idle CPU cores. With a real checkpoint (the paper has 18,240
# prompts; DETECTOR is the absolute path of a folder of `sanactl convert-detector`, and geneval.jsonl is of
# `sanactl prompts geneval`):
#   MODEL=Efficient-Large-Model/SANA1.5_1.6B_1024px_diffusers WRITE="prompts geneval --split train" PROMPTS=18240 IMAGES=32 \
#     GUIDANCE=4.5 SCORE="--detector mask2former:DETECTOR" HELD=geneval.jsonl EACH=4 STEPS=2000 LR=2e-5 ./recipes/sft-set.sh runs/sft
# What is done is not done again: stop it, and start it again with the same folder.
set -euo pipefail
exec </dev/null
. "$(dirname "$0")/setup.sh"
from_here MODEL HELD

folder=${1:-$root/runs/sft-set}
mkdir -p "$folder" && cd "$folder"
say() { printf '\n== %s\n' "$*" >&2; }
MODEL=${MODEL:-base.st} WRITE=${WRITE:-prompts shapes --split train} HELD=${HELD:-shapes} SCORE=${SCORE:-}
PROMPTS=${PROMPTS:-300} IMAGES=${IMAGES:-16} STEPS=${STEPS:-500} LR=${LR:-2e-4}
SEEDS=${SEEDS:-1 2 3} EACH=${EACH:-1} LIMIT=${LIMIT:-} GUIDANCE=${GUIDANCE:-1}
kept() { # kept FILE COMMAND...: runs a command whose records become FILE, once
  [ -e "$1" ] && return
  "${@:2}" > "$1.part" && mv "$1.part" "$1"
}

say "prompts that mean no evaluation prompt, and $IMAGES images of each"
# shellcheck disable=SC2086
kept prompts.jsonl sanactl $WRITE -n "$PROMPTS"
[ -e "$MODEL" ] || [ "$MODEL" != base.st ] || sanactl init shapes -o base.st >/dev/null
kept images.jsonl sanactl sample "$MODEL" --prompts prompts.jsonl -n "$IMAGES" --guidance "$GUIDANCE" --seed 1000 -o images

say "GenEval's verdicts; at most 10 correct images a prompt; as many images of the same prompts at random"
# shellcheck disable=SC2086
[ -e verdicts.jsonl ] || sanactl eval geneval images.jsonl $SCORE -o verdicts.jsonl >/dev/null
kept correct.jsonl sanactl filter verdicts.jsonl --correct --per-prompt 10 -o filtered.jsonl -f
kept random.jsonl sanactl filter verdicts.jsonl --sample "$(wc -l < correct.jsonl)" --seed 0 -o sampled.jsonl -f
for set in correct random; do
  [ -e "$set" ] || sanactl export "$set.jsonl" --to imagefolder -o "$set" >/dev/null
done

score() { # score CHECKPOINT NAME: the same held-out prompts and seeds for every checkpoint
  [ -e "$2.geneval.jsonl" ] && return
  # shellcheck disable=SC2086
  sanactl sample "$1" --prompts "$HELD" ${LIMIT:+--limit "$LIMIT"} -n "$EACH" -o "$2-samples" |
    sanactl eval geneval $SCORE -o "$2.geneval.jsonl" >/dev/null
}
say "before"
score "$MODEL" before
for seed in $SEEDS; do
  for set in correct random; do
    say "fine-tuning on $set images, seed $seed: $STEPS steps"
    [ -e "$set-$seed.st" ] || sanactl finetune "$MODEL" -d "$set" --steps "$STEPS" --lr "$LR" --schedule cosine \
      --optimizer adamw --seed "$seed" -o "$set-$seed.st" >/dev/null
    score "$set-$seed.st" "$set-$seed"
  done
done
# shellcheck disable=SC2086
python "$root/recipes/sft_table.py" . $SEEDS
