#!/usr/bin/env bash
#SBATCH --job-name=sanactl
#SBATCH --array=0-7
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --output=slurm-%A_%a.out
# Images of many prompts, the best of each and their scores, as independent jobs of a SLURM array and a last job that joins
# what they wrote. No job talks to another one; they share this folder on the cluster's file system.
#
#   jobs=$(sbatch --parsable recipes/slurm-array.sh)
#   sbatch --dependency=afterok:$jobs --array=0 recipes/slurm-array.sh merge
#
# Jobs that failed are started again by their numbers, and go on where they were: sbatch --array=3,5 with the TASK COUNT of
# the first start: COUNT=8 sbatch --array=3,5 recipes/slurm-array.sh. Then the last job is started again.
# MODEL, PROMPTS, N, KEEP, JUDGE and RUN set the work; COUNT the number of jobs, where it is not that of the array.
set -euo pipefail
exec </dev/null                          # commands that read a pipe must not read this script's

model=${MODEL:-base.st}
prompts=${PROMPTS:-shapes}               # a file of prompts; shapes names the built-in world's
n=${N:-16}                               # images of each prompt
keep=${KEEP:-4}
judge=${JUDGE:-builtin:shapes}
steps=${STEPS:-20}
cd "${RUN:-$PWD}"                        # one folder that all jobs see
sanactl() { python -m sanactl "$@" >/dev/null; }    # records go to files here, not to SLURM's log

if [ "${1:-}" = merge ]; then
  sanactl merge images                                  # images/images.jsonl, if no image is missing
  sanactl judge images/images.jsonl --all --model "$judge" -o judged.jsonl    # takes over what it finds; see below
  sanactl filter judged.jsonl --where "rank < $keep" -o best.jsonl
  sanactl eval geneval best.jsonl --allow-missing -o scores.jsonl
  exit
fi

part=$SLURM_ARRAY_TASK_ID/${COUNT:-$SLURM_ARRAY_TASK_COUNT}
sanactl sample "$model" --prompts "$prompts" -n "$n" --steps "$steps" -o images --shard "$part"
# This job's own images, as soon as they are there: the verdicts stay in .sanactl/verdicts, and the last job finds them.
sanactl judge "images/images.${part/\//-of-}.jsonl" --all --model "$judge" -o "judged.${part/\//-of-}.jsonl" --force
