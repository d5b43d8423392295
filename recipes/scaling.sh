#!/usr/bin/env bash
# What inference-time scaling buys (section 2.5, figures 3 and 8), on the built-in world.
#
#   ./recipes/scaling.sh [FOLDER]
#   PROMPTS=120 N=16 ./recipes/scaling.sh
#
# Figure 8: small models with many samples against a large one. Figure 3: steps against samples. A stopped run goes on
# where it was. PROMPTS, N, STEPS, DEPTHS, RECOVER and CALIBRATION set the size; the small default takes about ten minutes on 2 cores,
# and its intervals are wide.
set -euo pipefail
exec </dev/null                          # commands that read a pipe must not read this script's
. "$(dirname "$0")/setup.sh"

prompts=${PROMPTS:-24}                   # of the 360 that ship, the same for every model
n=${N:-8}                                # images of each prompt; every smaller number follows from them exactly
steps=${STEPS:-"4 6 10 20"}
depths=${DEPTHS:-"20 10"}                # of the pruned models
recover=${RECOVER:-100}                  # steps of training after pruning, the paper's number
calibration=${CALIBRATION:-10}           # sampling steps in which block importance is measured
run=${1:-$root/runs/scaling-p$prompts-n$n}
mkdir -p "$run" && cd "$run"
began=$SECONDS
say() { printf '\n== %s\n' "$*" >&2; }
once() { [ -e "$1" ] || "${@:2}" >/dev/null; }    # once FILE COMMAND...: not again where FILE is there

say "models: the base of 10 blocks, the grown one of 30, and pruned from it"
once base.st sanactl init shapes -o base.st
once grown.st sanactl init shapes-grown -o grown.st
once grown.importance.jsonl sanactl importance grown.st --steps $calibration -o grown.importance.jsonl
models="base grown"
for depth in $depths; do
  once cut-d$depth.st sanactl prune grown.st --importance grown.importance.jsonl --keep $depth -o cut-d$depth.st
  once pruned-d$depth.st sanactl finetune cut-d$depth.st --steps $recover -o pruned-d$depth.st
  models="$models pruned-d$depth"
done

# One command after the other, not a pipe: the journal then knows the seconds of each.
files=
for model in $models; do
  for step in $steps; do
    name=$model-s$step
    files="$files scaling-$name.jsonl"
    [ -e scaling-$name.jsonl ] && continue
    say "$model, $step steps: $n images of each of $prompts prompts, judged and scored"
    sanactl sample $model.st --prompts shapes --limit $prompts -n $n --steps $step -o $name >/dev/null
    once judged-$name.jsonl sanactl judge $name/images.jsonl --all -o judged-$name.jsonl
    sanactl eval geneval judged-$name.jsonl --round 1 -o scaling-$name.jsonl >/dev/null
  done
done

# An image of the base takes 2 GFLOPs with 4 steps, one of the grown model with 20 steps 22.
say "what to buy by the clock, and with 5, 20 and 80 GFLOPs a prompt; and the page"
# Seconds of small runs are mostly those of loading, so no short limit.
sanactl budget $files --seconds 1h -o budget-seconds.jsonl --force >/dev/null
for flops in 5G 20G 80G; do              # the page has the last
  sanactl budget $files --flops $flops -o budget-$flops.jsonl --force >/dev/null
done
sanactl report -o report.html --force --title "What inference-time scaling buys on the built-in world"
printf '\nThe page: %s/report.html   (%d s)\n' "$run" $((SECONDS - began))
