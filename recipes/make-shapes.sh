#!/usr/bin/env bash
# Makes everything of the built-in world that is trained, with sanactl's own commands, and packs it as it ships.
#
#   ./recipes/make-shapes.sh [FOLDER]
#   DRY=1 ./recipes/make-shapes.sh /tmp/dry        every stage with a few steps, for a trial: the models are of no use
#
# About three hours on 2 CPU cores (autoencoder 8 min, text encoder 1, base 100, judge 100). Every stage can be stopped
# and started again. Nothing here reads the evaluation prompts except the last line of each stage, which scores it.
set -euo pipefail
exec </dev/null
. "$(dirname "$0")/setup.sh"

world=${1:-$root/runs/world}
mkdir -p "$world" && cd "$world"
say() { printf '\n== %s\n' "$*" >&2; }
size() { if [ -z "${DRY:-}" ]; then echo "$1"; else echo "$2"; fi; }        # size USUAL DRY
evaluated=$(size 360 6) # evaluation prompts

say "prompts: the held-out evaluation set and the calibration set, by a fixed seed"
python -m sanactl.world.make_assets

say "autoencoder: diffusers' AutoencoderDC, 64 x 64 pixels to 8 latents of 8 x 8 (prints dB on unseen scenes)"
[ -d vae ] || sanactl make-shapes vae --world . --steps "$(size 8000 2)"

say "text encoder: a two-layer Gemma 2 that learns from prompts alone, then stays frozen; and the scheduler"
[ -d text_encoder ] || sanactl make-shapes text --world . --steps "$(size 700 2)"

say "base: SANA's transformer with 10 blocks of width 96, from random weights"
[ -e init.st ] || sanactl init shapes --scratch --world . --seed 0 -o init.st
# Stopped early on purpose: at 4,000 steps it makes mistakes in every task, so what follows has an effect to show.
[ -e base.st ] || sanactl finetune init.st --optimizer adamw --batch-size 32 --lr 1.2e-3 --warmup 300 --clip 1.0 \
  --ema 0.995 --cache "$(size 64000 64)" --steps "$(size 4000 2)" --save-every 500 --seed 1 -o base.st
sanactl sample base.st --prompts shapes --limit "$evaluated" -n 2 -o base-samples | sanactl eval geneval -o base.geneval.jsonl -f | tail -1

say "grown: the base at 30 blocks (the last two dropped), trained on"
[ -e grown-init.st ] || sanactl grow base.st --to 30 --init partial -o grown-init.st
[ -e grown-warm.st ] || sanactl finetune grown-init.st --optimizer adamw --batch-size 16 --lr 8e-4 --warmup 50 \
  --clip 1.0 --ema 0.99 --cache "$(size 24000 64)" --steps "$(size 1200 2)" --save-every 100 --seed 3 -o grown-warm.st
# The high rate leaves it below its base; 200 steps of CAME-8bit at the base's own rate put it above.
[ -e grown.st ] || sanactl finetune grown-warm.st --steps "$(size 200 2)" --seed 7 -o grown.st
sanactl sample grown.st --prompts shapes --limit "$evaluated" -n 1 -o grown-samples | sanactl eval geneval -o grown.geneval.jsonl -f | tail -1

say "judge: trained on images that the base drew for training prompts, labelled by the detector (appendix B)"
# A calibration needs right and wrong images. A base of two steps draws no right one, so a trial takes the one that ships.
drawing=$(size base.st shipped.st)
[ -e "$drawing" ] || sanactl init shapes -o "$drawing"
sanactl prompts shapes --split train -n "$(size 2000 24)" --seed 5 > all-prompts.jsonl
head -n "$(size 1700 16)" all-prompts.jsonl > train-prompts.jsonl
tail -n "$(size 300 8)" all-prompts.jsonl > calibration-prompts.jsonl
sanactl sample "$drawing" --prompts train-prompts.jsonl -n 4 -o judge-samples |
  sanactl eval geneval -o labelled.jsonl -f | tail -1
[ -d judge ] || sanactl train-judge labelled.jsonl --warmup-steps "$(size 2500 1)" --steps "$(size 6000 2)" \
  --pool-size "$(size 24000 40)" -o judge
# From the judge's answer to a probability, on other prompts for training.
sanactl sample "$drawing" --prompts calibration-prompts.jsonl -n 4 -o calibration-samples |
  sanactl judge --model ./judge --all -o calibration-judged.jsonl -f |
  sanactl eval geneval -o calibration-scored.jsonl -f |
  sanactl eval judge -c calibration.json -o calibration-quality.jsonl -f | tail -1
cp calibration.json judge/
sanactl sample "$drawing" --prompts shapes --limit "$evaluated" -n "$(size 16 2)" -o many-samples |
  sanactl judge --model ./judge --all -o judged.jsonl -f | sanactl eval geneval -o scaling.jsonl -f | tail -2

say "pack: weights in fp16, as they lie in sanactl/shapes/assets"
sanactl make-shapes pack --world . -o assets
