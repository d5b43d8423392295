#!/usr/bin/env bash
# Everything that only a GPU can tell, in one run of at most 9 minutes on one H100 or H200: Triton kernels against their
# torch twin, optimizers on the 1.6B and the 4.8B, images a second beside diffusers' SanaPipeline, a training step with
# each optimizer, the tests of GPUs, the whole method on the built-in world. The large models have random weights in the
# published shapes; nothing is downloaded.
#
#   recipes/gpu-check.sh                                  results in ./gpu-check
#   recipes/gpu-check.sh --only kernels,optim-1.6b        some parts (--help lists them)
#   recipes/gpu-check.sh --minutes 4                      what fits in 4 minutes, from the first part on
#   SMALL=1 recipes/gpu-check.sh                          tiny models on the CPU, about two minutes: a trial
#
# It takes no longer, however slow the machine: a part that runs over its time is killed, and one that would not fit is
# left out. It may be cut anywhere: results.jsonl and table.md have what was found until then, and the same command goes on with the
# parts that were not done. Another OUT measures all of them again.
#
# It uses the python3 that is there (PYTHON names another) with torch, triton, transformers, safetensors, numpy and
# diffusers, which itself needs Pillow and requests; sanactl need not be installed. Wheels in ./wheels of the repository
# (WHEELS names another folder) are unpacked and used, for machines without a network:
#
#   pip download --no-deps -d wheels --only-binary :all: --python-version 3.12 diffusers scipy
#
# Optimizers of bitsandbytes, torchao and came-pytorch, the tests (pytest), and scores of the built-in world (scipy) are
# left out where these are missing. One process needs no accelerate.
set -euo pipefail
SANACTL_BENCH_BEGAN=$(date +%s)           # the minutes count from here
export SANACTL_BENCH_BEGAN
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python3}
small=()
[ -z "${SMALL:-}" ] || small=(--small)
out=${OUT:-gpu-check${SMALL:+-small}}
packages=
for wheel in "${WHEELS:-$root/wheels}"/*.whl; do
  [ -e "$wheel" ] || continue
  packages=$(mkdir -p "$out" && cd "$out" && pwd)/packages
  [ -e "$packages/${wheel##*/}" ] && continue
  "$python" -m zipfile -e "$wheel" "$packages"
  : > "$packages/${wheel##*/}"            # is unpacked
done
export PYTHONPATH=$root${packages:+:$packages}${PYTHONPATH:+:$PYTHONPATH} HF_HUB_OFFLINE=${HF_HUB_OFFLINE:-1}
exec "$python" -m sanactl.bench.gpu_check --out "$out" "${small[@]}" "$@"
