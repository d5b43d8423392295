#!/usr/bin/env bash
#SBATCH --job-name=sanactl
#SBATCH --array=0-7
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --output=slurm-%A_%a.out
# Images of many prompts, the best of each and their scores: independent jobs of two SLURM arrays, and a last job that joins
# what they wrote. No job talks to another one; they share this folder on the cluster's file system. The result is that of
# one process, byte for byte.
#
#   drawn=$(sbatch --parsable recipes/slurm-array.sh draw)
#   judged=$(sbatch --parsable --dependency=afterok:$drawn recipes/slurm-array.sh judge)
#   sbatch --dependency=afterok:$judged --array=0 recipes/slurm-array.sh merge
#
# Jobs that failed are started again by their numbers, with the number of all jobs, and go on where they were:
#
#   COUNT=8 sbatch --array=3,5 recipes/slurm-array.sh draw
#
# MODEL, PROMPTS, N, STEPS, KEEP, JUDGE and RUN set the work. Judging and scoring start from the kept verdicts and write their
# files anew, so a changed KEEP or JUDGE counts. Images of other PROMPTS, MODEL or STEPS need another folder (RUN).
set -euo pipefail
exec </dev/null                          # commands that read a pipe must not read this script's
stop() { echo "slurm-array.sh: $1" >&2; exit 2; }

step=${1:-draw}
case $step in draw|judge|merge) ;; *) stop "usage: slurm-array.sh draw|judge|merge" ;; esac
part=${SLURM_ARRAY_TASK_ID-}
count=${COUNT:-${SLURM_ARRAY_TASK_COUNT-}}
[ -n "$part" ] && [ -n "$count" ] || stop "no SLURM_ARRAY_TASK_ID and SLURM_ARRAY_TASK_COUNT; start it with sbatch --array=0-7"

model=${MODEL:-base.st}
prompts=${PROMPTS:-shapes}               # a file of prompts; shapes names the built-in world's
n=${N:-16}                               # images of each prompt
steps=${STEPS:-20}
keep=${KEEP:-4}                          # of them, the best by the judge
judge=${JUDGE:-builtin:shapes}
cd "${RUN:-$PWD}"                        # one folder that all jobs see
run() { python -m sanactl "$@" >/dev/null; }    # records are in files, and not in SLURM's log

# Images and verdicts that are there are taken over. Each file of records is replaced when its new one is complete.
case $step in
  draw)
    run sample "$model" --prompts "$prompts" -n "$n" --steps "$steps" -o images --shard "$part/$count" ;;
  judge)
    # Each job needs the list of all images, in one order: of the same batches every N-th is its own.
    run merge images -f -o "all.$part.jsonl"
    run judge "all.$part.jsonl" -k "$keep" --model "$judge" --shard "$part/$count" -f -o "judged.$part-of-$count.jsonl"
    rm "all.$part.jsonl" ;;
  merge)
    run merge images -f
    run merge judged.*-of-*.jsonl -f -o judged.jsonl
    if grep -q '"tag":' judged.jsonl; then
      run eval geneval judged.jsonl --allow-missing -f -o scores.jsonl
    else
      echo "slurm-array.sh: not scored, since the prompts have no tag (GenEval's rules need it)" >&2
    fi ;;
esac
