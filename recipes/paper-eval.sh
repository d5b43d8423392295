#!/usr/bin/env bash
# The paper's evaluation of a checkpoint (section 3.1, table 1): speed, GenEval, FID and CLIP score on MJHQ-30K, DPG-Bench.
#
#   ./recipes/paper-eval.sh CHECKPOINT [FOLDER]
#   DRY=1 ./recipes/paper-eval.sh                 on the built-in world: no download, two minutes on 2 idle cores
#
# A stage whose models or data are missing is left out with one line. Stop it at any time and start it again with the same
# FOLDER: what is done is not done again. For one checkpoint in the paper's size: 2,212 + 30,000 + 4,260 images, which take
# 39 GPU hours with the 4.8B at the paper's 0.26 images a second (computed).
#
#   DETECTOR   GenEval's detector: mask2former:FOLDER, of sanactl convert-detector     without: no GenEval
#   CLIP       CLIP ViT-L/14, a folder or Hub id, for colours and the CLIP score       default: openai/clip-vit-large-patch14
#   MJHQ       folder with MJHQ-30K's meta_data.json and its images                    without: no FID and no CLIP score
#   REFERENCE  MJHQ-30K's statistics (.npz), in place of its images                    default: the images
#   INCEPTION  pt_inception-2015-12-05-6726825d.pth                                    default: torch.hub's cache
#   DPG        dpg_bench.csv                                                           without: no DPG-Bench
#   VQA        what answers DPG-Bench's questions: a model, mplug:FILE                 without: no DPG-Bench
#   LAUNCH     such as "accelerate launch" or "torchrun --nproc-per-node 8"            default: one process
#   SAMPLING_STEPS                                                                     default: the checkpoint's, 20
#   LIMIT      so many prompts of each benchmark, for a trial                          default: all
set -euo pipefail
exec </dev/null                          # commands that read a pipe must not read this script's stdin
. "$(dirname "$0")/setup.sh"

DRY=${DRY:-}
[ -n "$DRY" ] || [ $# -gt 0 ] || { echo "usage: $0 CHECKPOINT [FOLDER]   (or DRY=1)" >&2; exit 2; }
checkpoint=${1:-}
if [ -e "$checkpoint" ]; then checkpoint=$(realpath "$checkpoint"); fi
name=$(basename "${checkpoint:-shapes}" .st)
run=${2:-$root/runs/paper-eval-$name}
LAUNCH=${LAUNCH:-} LIMIT=${LIMIT:-} SAMPLING_STEPS=${SAMPLING_STEPS:-}
from_here DETECTOR MJHQ REFERENCE INCEPTION DPG CLIP VQA
mkdir -p "$run" && cd "$run"
say() { printf '\n== %s\n' "$*" >&2; }
launched() { if [ -n "$LAUNCH" ]; then $LAUNCH -m sanactl "$@"; else sanactl "$@"; fi; }
once() { [ -e "$1" ] || "${@:2}" >/dev/null; }        # once FILE COMMAND...: not again where FILE is there
draw() {                                              # draw PROMPTS COUNT FOLDER
  launched sample "$checkpoint" --prompts "$1" -n "$2" ${LIMIT:+--limit "$LIMIT"} ${SAMPLING_STEPS:+--steps "$SAMPLING_STEPS"} -o "$3" >/dev/null
}

small=${LIMIT:+--small}                               # FID of few images, which compares with nothing else
geneval_images=4 features=2048 colors=${CLIP:-openai/clip-vit-large-patch14}
if [ -n "$DRY" ]; then
  LIMIT=${LIMIT:-8} SAMPLING_STEPS=${SAMPLING_STEPS:-6} DETECTOR=shapes VQA=shapes small=--small geneval_images=2 features=64
  # A CLIP and an InceptionV3 with random weights, and a small MJHQ and DPG-Bench: the scores mean nothing.
  once dry/done python "$root/recipes/paper_eval.py" dry dry
  MJHQ=dry/mjhq DPG=dry/dpg_bench.csv CLIP=dry/clip INCEPTION=dry/inception.pth
  if [ -z "$checkpoint" ]; then once base.st sanactl init shapes -o base.st; checkpoint=base.st; fi
fi

say "speed: latency of one image, throughput of ten at once, beside diffusers"
once speed.jsonl sanactl eval speed "$checkpoint" ${SAMPLING_STEPS:+--steps "$SAMPLING_STEPS"} ${DRY:+-b 2 --rounds 1} -o speed.jsonl

if [ -z "${DETECTOR:-}" ]; then say "GenEval is left out: DETECTOR names no detector"; else
  say "GenEval: $geneval_images images a prompt"
  if [ -n "$DRY" ]; then prompts=shapes; else
    prompts=geneval-prompts.jsonl
    [ -e $prompts ] || { sanactl prompts geneval > $prompts.part && mv $prompts.part $prompts; }
  fi
  [ -e geneval.jsonl ] || {
    draw $prompts $geneval_images geneval
    if [ "$DETECTOR" = shapes ]; then colors=; fi
    launched eval geneval geneval/images.jsonl --detector "$DETECTOR" ${colors:+--colors "$colors"} -o geneval.jsonl >/dev/null
  }
fi

if [ -z "${MJHQ:-}" ]; then say "FID and CLIP score are left out: MJHQ names no folder"; else
  say "FID and CLIP score: an image of each of MJHQ-30K's prompts"
  [ -e mjhq-prompts.jsonl ] || {
    python "$root/recipes/paper_eval.py" mjhq "$MJHQ" > mjhq-prompts.part && mv mjhq-prompts.part mjhq-prompts.jsonl
  }
  [ -e clip.jsonl ] && [ -e fid.jsonl ] || draw mjhq-prompts.jsonl 1 mjhq
  once clip.jsonl launched eval clip mjhq/images.jsonl ${CLIP:+--model "$CLIP"} -o clip.jsonl
  once fid.jsonl launched eval fid mjhq/images.jsonl --reference "${REFERENCE:-$MJHQ}" --features $features \
    ${INCEPTION:+--weights "$INCEPTION"} $small -o fid.jsonl
fi

if [ -z "${DPG:-}" ] || [ -z "${VQA:-}" ]; then say "DPG-Bench is left out: DPG and VQA name no questions and no model"; else
  say "DPG-Bench: 4 images a prompt"
  [ -e dpg-prompts.jsonl ] || { sanactl prompts dpg "$DPG" > dpg-prompts.part && mv dpg-prompts.part dpg-prompts.jsonl; }
  [ -e dpg.jsonl ] || {
    draw dpg-prompts.jsonl 4 dpg
    sanactl eval dpg dpg/images.jsonl --questions "$DPG" --vqa "$VQA" ${LIMIT:+--allow-missing} -o dpg.jsonl >/dev/null
  }
fi

say "the table, and one page about the run"
: > scores.jsonl
for file in speed geneval clip fid dpg; do
  if [ -e $file.jsonl ]; then grep -h '^{"kind": "score"' $file.jsonl >> scores.jsonl; fi
done
sanactl eval all scores.jsonl --table table1.md -o table1.jsonl --force >/dev/null
sanactl report --force -o report.html --title "The paper's evaluation of $name" >/dev/null
printf '\nThe table: %s/table1.md\nThe page: %s/report.html\n' "$PWD" "$PWD"
