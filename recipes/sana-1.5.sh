#!/usr/bin/env bash
# The SANA-1.5 paper as one script, on GPUs: grow 1.6B to 4.8B, train, prune, recover, sample, judge, score.
#
#   DATA=/data/images PROMPTS=evaluation_metadata.jsonl ./recipes/sana-1.5.sh [FOLDER]
#   WORLD=shapes ./recipes/sana-1.5.sh             the same script on the built-in world: CPU, minutes, no download
#
# Stop it at any time and start it again with the same FOLDER: what is done is not done again.
#
# The costs beside the steps are for one H100 (80 GB) at 1024 pixels. Measured by the paper: 0.26 images/s for the 4.8B.
# All other numbers are computed: a training step takes 8 x 1,024 x parameters FLOPs an image with gradient
# checkpointing, at 40 % of the 989 TFLOP/s that an H100 gives in bf16.
set -euo pipefail
exec </dev/null                          # commands that read a pipe must not read this script's stdin
. "$(dirname "$0")/setup.sh"
from_here MODEL DATA PROMPTS CALIBRATION DETECTOR JUDGE MJHQ REFERENCE INCEPTION DPG CLIP VQA

# ---- Choices ---------------------------------------------------------------------------------------------------------
WORLD=${WORLD:-published}                # published: the released checkpoints; shapes: the built-in world
if [ "$WORLD" = shapes ]; then
  MODEL=${MODEL:-shapes}
  DATA=${DATA:-}                         # the built-in endless stream of images with captions
  PROMPTS=${PROMPTS:-shapes}
  CALIBRATION=${CALIBRATION:-}           # the built-in 100 calibration prompts
  DETECTOR=${DETECTOR:-shapes}
  DEEP=${DEEP:-30}; DEPTHS=${DEPTHS:-20 15 10}
  STEPS=${STEPS:-60}; BATCH=${BATCH:-8}; OPTIMIZER_OPTIONS=${OPTIMIZER_OPTIONS:---lr 1e-4}
  LIMIT=${LIMIT:-12}; IMAGES=${IMAGES:-4}
  LAUNCH=${LAUNCH:-}
else
  MODEL=${MODEL:-Efficient-Large-Model/SANA1.5_1.6B_1024px_diffusers}
  DATA=${DATA:?DATA names the training images: a folder with metadata.jsonl, tar shards, or a dataset id}
  PROMPTS=${PROMPTS:?PROMPTS names the GenEval prompts: evaluation_metadata.jsonl of github.com/djghosh13/geneval}
  CALIBRATION=${CALIBRATION:-}           # prompts for block importance: the paper takes 100 (section 2.4)
  DETECTOR=${DETECTOR:-}                 # empty: score the folders of images with GenEval's own program
  DEEP=${DEEP:-60}; DEPTHS=${DEPTHS:-40 30 20}
  STEPS=${STEPS:-10000}; BATCH=${BATCH:-256}
  OPTIMIZER_OPTIONS=${OPTIMIZER_OPTIONS:---gradient-checkpointing}
  LIMIT=${LIMIT:-}; IMAGES=${IMAGES:-4}
  LAUNCH=${LAUNCH:-accelerate launch}    # all GPUs of this machine; accelerate config sets up more
fi
RECOVERY_STEPS=${RECOVERY_STEPS:-100}    # the paper's budget after pruning (section 2.4)
run=${1:-$root/runs/sana-1.5-$WORLD}
# ----------------------------------------------------------------------------------------------------------------------

mkdir -p "$run" && cd "$run"
say() { printf '\n== %s\n' "$*" >&2; }
launched() { if [ -n "$LAUNCH" ]; then $LAUNCH -m sanactl "$@"; else sanactl "$@"; fi; }
train() {       # train FROM TO STEPS: a run that was stopped goes on from its last saved state
  # shellcheck disable=SC2086
  [ -e "$2" ] || launched finetune "$1" ${DATA:+--data "$DATA"} --steps "$3" -b "$BATCH" $OPTIMIZER_OPTIONS -o "$2" >/dev/null
}
score() {       # score NAME: the images of NAME.st, and their GenEval scores where a detector is named
  launched sample "$1.st" --prompts "$PROMPTS" ${LIMIT:+--limit "$LIMIT"} -n "$IMAGES" -o "$1-samples" >/dev/null
  [ -z "$DETECTOR" ] || [ -e "$1.geneval.jsonl" ] ||
    sanactl eval geneval "$1-samples/images.jsonl" --detector "$DETECTOR" -o "$1.geneval.jsonl" >/dev/null
}

say "the base checkpoint in one file: 3.2 GB, minutes of download"
if [ "$MODEL" = shapes ]; then sanactl init shapes -o base.st >/dev/null
else sanactl convert "$MODEL" -o base.st >/dev/null; fi
score base

say "model growth (section 2.2): to $DEEP blocks; the last two are dropped, the new ones begin as the identity"
# Seconds: tensors are copied from file to file. The result holds 9.6 GB in bf16.
sanactl grow base.st --to "$DEEP" --init partial -o fresh.st >/dev/null

say "training with CAME-8bit (section 2.3): $STEPS steps of $BATCH images"
# 4.8B: about 7 GPU hours for 1,000 steps of 256 images (computed). Weights and gradients in fp32 take 38 GB, the 8-bit
# state 5 GB; with gradient checkpointing the rest of 80 GB holds the activations.
train fresh.st grown.st "$STEPS"
score grown

say "block importance (equation 3) over the calibration prompts, and depth pruning (section 2.4)"
# 100 prompts with 20 steps each: about 7 GPU minutes (computed from the paper's speed). Pruning takes seconds.
sanactl importance grown.st ${CALIBRATION:+--prompts "$CALIBRATION"} --plot importance.svg -o grown.importance.jsonl >/dev/null
for depth in $DEPTHS; do
  sanactl prune grown.st --importance grown.importance.jsonl --keep "$depth" -o "pruned-d$depth.st" >/dev/null
  score "pruned-d$depth"
  say "recovery of $depth blocks in $RECOVERY_STEPS steps (section 2.4): minutes on one node of 8 GPUs"
  train "pruned-d$depth.st" "recovered-d$depth.st" "$RECOVERY_STEPS"
  score "recovered-d$depth"
done

say "inference-time scaling (section 2.5): the judge keeps the best of $IMAGES images of each prompt"
# Sampling the 553 GenEval prompts, 4 images each, takes 2.4 GPU hours with the 4.8B (computed from the paper's speed).
best=grown
if [ "$WORLD" = shapes ]; then judge=builtin:shapes; else judge=${JUDGE:-nvila:Efficient-Large-Model/NVILA-Lite-2B-Verifier}; fi
[ -e judged.jsonl ] || sanactl judge "$best-samples/images.jsonl" --model "$judge" --all -o judged.jsonl >/dev/null
[ -z "$DETECTOR" ] || [ -e scaling.jsonl ] ||
  sanactl eval geneval judged.jsonl --detector "$DETECTOR" -o scaling.jsonl >/dev/null

say "the paper's evaluation of $best.st (section 3.1, table 1): FID, CLIP score, GenEval, DPG-Bench and speed"
# paper-eval.sh says which data each needs (MJHQ, DPG, VQA, CLIP, INCEPTION); what is missing is left out with one line.
DRY=$([ "$WORLD" = shapes ] && echo 1 || true) DETECTOR=$DETECTOR LAUNCH=$LAUNCH LIMIT=$LIMIT \
  "$root/recipes/paper-eval.sh" "$best.st" "$PWD/paper-eval"

say "everything on one page"
sanactl report --force -o report.html --title "SANA-1.5: growth, pruning, inference-time scaling"
printf '\nThe page: %s/report.html\n' "$run"
