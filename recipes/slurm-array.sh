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
# MODEL, PROMPTS, N, STEPS, KEEP, JUDGE and RUN set the work.
set -euo pipefail
exec </dev/null                          # commands that read a pipe must not read this script's

model=${MODEL:-base.st}
prompts=${PROMPTS:-shapes}               # a file of prompts; shapes names the built-in world's
n=${N:-16}                               # images of each prompt
steps=${STEPS:-20}
keep=${KEEP:-4}                          # of them, the best by the judge
judge=${JUDGE:-builtin:shapes}
count=${COUNT:-$SLURM_ARRAY_TASK_COUNT}
part=$SLURM_ARRAY_TASK_ID
cd "${RUN:-$PWD}"                        # one folder that all jobs see
run() { python -m sanactl "$@" >/dev/null; }    # records are in files, and not in SLURM's log
once() { [ -e "$1" ] || run "${@:2}" -o "$1"; } # once FILE COMMAND...: not again where FILE is there

case ${1:-draw} in
  draw)
    run sample "$model" --prompts "$prompts" -n "$n" --steps "$steps" -o images --shard "$part/$count" ;;
  judge)
    # Each job needs the list of all images, in one order: of the same batches every N-th is its own.
    once "all.$part.jsonl" merge images
    once "judged.$part-of-$count.jsonl" judge "all.$part.jsonl" -k "$keep" --model "$judge" --shard "$part/$count"
    rm "all.$part.jsonl" ;;
  merge)
    [ -e images/images.jsonl ] || run merge images
    once judged.jsonl merge judged.*-of-*.jsonl
    once scores.jsonl eval geneval judged.jsonl --allow-missing ;;
esac
