#!/usr/bin/env bash
# Three claims of the paper, checked on the built-in world over three seeds: growth against scratch (figures 2 and 7),
# the optimizers (figure 6), recovery after pruning (table 3).
#
#   ./recipes/evidence.sh [FOLDER] [growth] [optimizers] [recovery]
#
# All three by default: about an hour and a half on 2 CPU cores. What is done is not done again: stop it, and start it
# again with the same folder. Ends with a table. In the environment, SEEDS ("1 2 3"), STEPS of every training and LIMIT, the
# number of prompts of a score, change the size: SEEDS=1 STEPS=2 LIMIT=6 is a trial, and its numbers mean nothing.
set -euo pipefail
exec </dev/null
. "$(dirname "$0")/setup.sh"

run=${1:-$root/runs/evidence}
parts=${*:2}; parts=${parts:-growth optimizers recovery}
mkdir -p "$run" && cd "$run"
seeds=${SEEDS:-1 2 3}
say() { printf '\n== %s\n' "$*" >&2; }

# Every model is scored on the same held-out prompts with the same seeds; a score that is there is kept.
score() {       # score NAME IMAGES-A-PROMPT
  [ -e "$1.geneval.jsonl" ] && return
  sanactl sample "$1.st" --prompts shapes --limit "${LIMIT:-72}" -n "$2" -o "$1-samples" |
    sanactl eval geneval -o "$1.geneval.jsonl" >/dev/null
}
# What finetune tells when it is done, its optimizer's bytes among it, goes to NAME.done.jsonl.
train() {       # train FROM NAME OPTIONS...
  [ -e "$2.done.jsonl" ] && return
  sanactl finetune "$1" -o "$2.st" "${@:3}" > "$2.done.part" && mv "$2.done.part" "$2.done.jsonl"
}

growth() {
  # Each seed draws its own new weights and its own examples and noise; within a seed all models see the same ones.
  steps=${STEPS:-240}
  for seed in $seeds; do
    sanactl grow base.st --to 30 --seed "$seed" -o "growth-partial-$seed-0.st" >/dev/null
    sanactl grow base.st --to 30 --drop-last 0 --seed "$seed" -o "growth-partial-keep-all-$seed-0.st" >/dev/null
    sanactl grow base.st --to 30 --init cyclic -o "growth-cyclic-$seed-0.st" >/dev/null
    sanactl grow base.st --to 30 --init replicate -o "growth-replicate-$seed-0.st" >/dev/null
    sanactl init "growth-partial-$seed-0.st" --scratch --seed "$seed" -o "growth-scratch-$seed-0.st" >/dev/null
    for init in partial partial-keep-all cyclic replicate scratch; do
      say "growth: $init, seed $seed"
      # Random weights and copies have far to go: AdamW at a rate that suits them all.
      train "growth-$init-$seed-0.st" "growth-$init-$seed" --steps "$steps" -b 8 --optimizer adamw --lr 5e-4 \
        --clip 1 --cache 4000 --seed "$seed"
      score "growth-$init-$seed" 1
    done
  done
}

optimizers() {
  # From random weights of the base's ten blocks, where an optimizer has most to do. CAME's steps have no bias
  # correction and are longer than its rate says, so each family has the best rate of a short search.
  steps=${STEPS:-300}
  for seed in $seeds; do
    sanactl init base.st --scratch --seed "$seed" -o "optimizer-$seed-0.st" >/dev/null
    for choice in adamw:$ADAM_LR adamw8bit:$ADAM_LR came:$CAME_LR came8bit:$CAME_LR; do
      optimizer=${choice%:*}
      say "optimizers: $optimizer, seed $seed"
      train "optimizer-$seed-0.st" "optimizer-$optimizer-$seed" --steps "$steps" -b 16 --optimizer "$optimizer" \
        --lr "${choice#*:}" --clip 1 --warmup 30 --cache 4000 --seed "$seed"
    done
  done
}
ADAM_LR=${ADAM_LR:-4e-3} CAME_LR=${CAME_LR:-4e-4}

recovery() {
  # The paper's budget of 100 steps after pruning to 2/3 and to 1/3, alone and with the unpruned parent as a teacher.
  steps=${STEPS:-100}
  sanactl init shapes-grown -o grown.st >/dev/null
  sanactl importance grown.st -o grown.importance.jsonl >/dev/null
  for depth in 20 10; do
    sanactl prune grown.st --importance grown.importance.jsonl --keep $depth -o "pruned-$depth.st" >/dev/null
    score "pruned-$depth" 2
    for seed in $seeds; do
      say "recovery: $depth blocks, seed $seed"
      train "pruned-$depth.st" "recovery-$depth-alone-$seed" --steps "$steps" --seed "$seed"
      train "pruned-$depth.st" "recovery-$depth-teacher-$seed" --steps "$steps" --seed "$seed" --teacher grown.st
      score "recovery-$depth-alone-$seed" 2
      score "recovery-$depth-teacher-$seed" 2
    done
  done
}

sanactl init shapes -o base.st >/dev/null
for part in $parts; do "$part"; done
python "$root/recipes/evidence_table.py" .
