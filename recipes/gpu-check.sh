#!/usr/bin/env bash
# Everything that only a GPU can tell, in one run of at most 9 minutes on one H100 or H200: Triton kernels against their
# torch twin, optimizers on the 1.6B and the 4.8B, images a second beside diffusers' SanaPipeline, a training step with
# each optimizer, the tests of GPUs. All models have random weights in the published shapes; nothing is downloaded.
#
#   recipes/gpu-check.sh                                  results in ./gpu-check
#   recipes/gpu-check.sh --only kernels,optim-1.6b        some parts (--help lists them)
#   SMALL=1 recipes/gpu-check.sh                          tiny models on the CPU, about two minutes: a trial
#
# It may be cut anywhere: results.jsonl and table.md have what was found until then. It uses the python3 that is there
# (PYTHON names another) with torch, triton, transformers, safetensors, numpy and diffusers; sanactl itself need not be
# installed. Optimizers of bitsandbytes, torchao and came-pytorch, and the tests (pytest), are left out where they are missing.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}
small=()
[ -z "${SMALL:-}" ] || small=(--small)
exec "${PYTHON:-python3}" -m sanactl.bench.gpu_check --out "${OUT:-gpu-check}" "${small[@]}" "$@"
