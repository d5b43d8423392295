#!/usr/bin/env bash
# The whole of SANA-1.5 on the built-in world: grow, train, measure, prune, recover, sample, judge, score.
#
#   ./recipes/quickstart.sh [FOLDER]
#
# Needs nothing but Python 3.10 or newer; makes its own environment first. On 2 CPU cores the run itself takes about
# six minutes and ends with a table beside the paper's and a page to look at, FOLDER/report.html.
set -euo pipefail
exec </dev/null                          # commands that read a pipe must not read this script's
. "$(dirname "$0")/setup.sh"

run=${1:-$root/runs/quickstart}
n=2; while [ -e "$run" ]; do run=${1:-$root/runs/quickstart}-$n; n=$((n + 1)); done
mkdir -p "$run" && cd "$run"
say() { printf '\n== %s\n' "$*" >&2; }
began=$SECONDS

# Every model is scored on the same held-out prompts, GenEval's six tasks in turn, with the same seeds.
prompts=48      # of the 360 that ship, 8 of each task: the overall score's 95 % interval is about +-0.13
score() {       # score CHECKPOINT NAME: sample, and judge by GenEval's rules with the built-in detector
  sanactl sample "$1" --prompts shapes --limit $prompts -n 1 -o "$2-samples" |
    sanactl eval geneval -o "$2.geneval.jsonl" >/dev/null
}

say "a base checkpoint: a SANA of 10 blocks that knows a small world of coloured shapes"
sanactl init shapes -o base.st >/dev/null
score base.st base

say "model growth (section 2.2): 10 blocks become 30, the new ones the identity; against random weights"
# Nothing is dropped here: 60 steps are too few to win back two of ten blocks. So the grown model starts as exactly its
# parent, which --verify shows. AdamW at a high rate, since random weights have far to go.
sanactl grow base.st --to 30 --init partial --drop-last 0 --verify -o fresh.st >/dev/null
sanactl init fresh.st --scratch -o scratch.st >/dev/null     # the same depth with random weights
for model in fresh scratch; do                               # the same examples, noise and steps for both
  sanactl finetune $model.st --steps 60 --optimizer adamw --lr 5e-4 -o $model-ft.st >/dev/null
  score $model-ft.st $model
done

say "growth as in the paper, the last two dropped, after 1,400 steps of training: this one ships"
sanactl init shapes-grown -o grown.st >/dev/null
score grown.st grown

say "block importance (equation 3) over 100 calibration prompts, and depth pruning (section 2.4)"
sanactl importance grown.st --plot importance.svg -o grown.importance.jsonl >/dev/null
for depth in 20 10; do
  sanactl prune grown.st --importance grown.importance.jsonl --keep $depth -o pruned-d$depth.st >/dev/null
  score pruned-d$depth.st pruned-d$depth
  sanactl finetune pruned-d$depth.st --steps 100 -o recovered-d$depth.st >/dev/null    # the paper's recovery budget
  score recovered-d$depth.st recovered-d$depth
done

say "inference-time scaling (section 2.5): 16 images a prompt, and a vision-language model picks"
sanactl sample recovered-d10.st --prompts shapes --limit 24 -n 16 -o many-samples |
  sanactl judge --all -o judged.jsonl |
  sanactl eval geneval -o scaling.jsonl >/dev/null

say "everything on one page"
sanactl report -o report.html --title "SANA-1.5 on the built-in world"
python "$root/recipes/quickstart_table.py" .
printf '\nThe page: %s/report.html   (%d s)\n' "$run" $((SECONDS - began))
