#!/usr/bin/env bash
# Prompts in four languages (appendix C, figures 13 to 15) on the built-in world: English, Chinese, English with Chinese
# words, English with emoji.
#
#   ./recipes/languages.sh [FOLDER]
#   DRY=1 ./recipes/languages.sh /tmp/dry
#
# The text encoder learns the other languages first, as SANA's Gemma 2 has before it meets SANA. Then the base is
# fine-tuned on captions in all four forms, and, for comparison, equally long on English ones. A stopped run goes on where
# it was. PROMPTS (a divisor of 360), SAMPLING, LESSONS, PICTURES and STEPS set the size; the default takes about ten minutes
# of one core. DRY=1 is the smallest size, and its scores mean nothing.
set -euo pipefail
exec </dev/null                          # commands that read a pipe must not read this script's
. "$(dirname "$0")/setup.sh"

[ -z "${DRY:-}" ] || : "${PROMPTS:=6}" "${SAMPLING:=2}" "${LESSONS:=2}" "${PICTURES:=32}" "${STEPS:=2}"
prompts=${PROMPTS:-60}                   # of the 360 that ship, the same in every form and for every model
sampling=${SAMPLING:-10}                 # sampling steps of an image
lessons=${LESSONS:-200}                  # steps in which the text encoder learns
pictures=${PICTURES:-2000}               # pictures to fine-tune on, each with a caption in every form
steps=${STEPS:-200}                      # of fine-tuning
run=${1:-$root/runs/languages-p$prompts-s$steps}
mkdir -p "$run" && cd "$run"
began=$SECONDS
say() { printf '\n== %s\n' "$*" >&2; }
once() { [ -e "$1" ] || "${@:2}" >/dev/null; }    # once FILE COMMAND...: not again where FILE is there

score() {       # score CHECKPOINT NAME [OPTION...]: sample the prompts of all forms, and judge by GenEval's rules
  [ -e "$2.geneval.jsonl" ] && return
  sanactl sample "$1" "${@:3}" --prompts prompts.jsonl -n 1 --steps $sampling -o "$2" >/dev/null
  sanactl eval geneval "$2/images.jsonl" -o "$2.geneval.jsonl" >/dev/null
}

say "prompts: $prompts evaluation prompts in four forms; their translations follow from the world's grammar"
prompts() { sanactl prompts shapes | awk -v every=$((360 / prompts)) 'NR % every == 1 || every == 1' |
  sanactl relabel --to en,zh,en-zh,emoji -o prompts.jsonl; }
once prompts.jsonl prompts

say "the base, with its own text encoder of 43 English words"
once base.st sanactl init shapes -o base.st
score base.st base

say "text encoder: a token for every foreign word, whose features shall be those of the English prompt"
once languages sanactl make-shapes languages --steps $lessons -o languages
score base.st taught --components languages

say "fine-tuning on captions in four forms, and equally long on English ones"
once latents sanactl encode base.st --components languages --captions en,zh,en-zh,emoji --count $pictures -o latents
tune() {        # tune COLUMNS NAME
  once $2.st sanactl finetune base.st --components languages --data latents --captions $1 --steps $steps \
    --optimizer adamw --lr 3e-4 --warmup $((steps / 10)) --schedule cosine --clip 1.0 --ema 0.98 -o $2.st
}
for tuned in four:en,zh,en-zh,emoji english:en; do
  tune ${tuned#*:} ${tuned%%:*}
  score ${tuned%%:*}.st ${tuned%%:*}
done

python "$root/recipes/languages.py" .
printf '\n%s   (%d s)\n' "$run" $((SECONDS - began)) >&2
