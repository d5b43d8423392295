"""A step's gradient from parts of its batch: how a batch is cut, and how the parts' gradients become one.

On a CPU each part of a small model's batch is computed on one thread (`sanactl.model.cpu.Workers`). The parts are a
function of the batch alone, and their gradients are added in their order, so that a step is the same, bit for bit, on
any number of threads, idle or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from sanactl.model.cpu import one_thread_each

__all__ = ["add_gradients", "at_once", "cut", "process_parts", "share_gradients", "side_by_side"]

# Latent tokens from which a part of its own pays. A forward and backward pass of the built-in base (64 tokens an
# image) takes 67 ms of processor time whatever its batch, and 22 ms an image.
PART_TOKENS = 512

# Gradients that are sent together: a copy of so many bytes is held.
SHARED_BYTES = 256 << 20

# One image of the built-in base (1.6 M parameters) takes 0.09 s on one thread and 0.11 on two, of a model of 35 M
# 1.2 s and 0.9.
ALONE_PARAMETERS = 10_000_000


def side_by_side(device: torch.device, parameters: int, share: int) -> bool:
    """Whether a model's batches are computed in parts, each on one thread.

    Args:
        device: where.
        parameters: of the model.
        share: the least number of a batch's examples that a process has. A single one is in one part; of a model that
            is not very small, all threads take it together.
    """
    return one_thread_each(device, parameters) and (share > 1 or parameters < ALONE_PARAMETERS)


def cut(count: int, tokens: int, accumulate: int = 1) -> list[range]:
    """The parts of a share of `count` examples: two or more where there are two examples, as equal as can be.

    Args:
        count: examples of a step, of this process.
        tokens: latent tokens of each.
        accumulate: the least number of parts, as far as there are examples.
    """
    parts = min(count, max(2, count * tokens // PART_TOKENS, accumulate))
    edges = [-(-count * n // parts) for n in range(parts + 1)]
    return [range(first, last) for first, last in pairwise(edges)]


def process_parts(mine: Sequence[int], accumulate: int, tokens: int | None) -> list[list[int]]:
    """The places of a batch that are one process's, in the parts that go through the model together.

    Args:
        mine: these places.
        accumulate: parts, one after the other.
        tokens: latent tokens of an example, where the parts are computed side by side; None where they are not.
    """
    if tokens is not None:
        return [[mine[place] for place in part] for part in cut(len(mine), tokens, accumulate)]
    size = max(1, -(-len(mine) // accumulate))
    return [list(mine[start : start + size]) for start in range(0, len(mine), size)]


def at_once(parts: int, accumulate: int) -> int:
    """How many of a batch's parts may be in memory together: as many images as without workers."""
    return max(1, parts // accumulate)


def add_gradients(parameters: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
    """Adds gradients to those that the parameters have; None is nothing, as for a parameter that was not used."""
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if gradient is None:
            continue
        if parameter.grad is None:
            # A copy: torch may give one tensor as the gradient of several.
            parameter.grad = torch.empty_like(parameter).copy_(gradient)
        else:
            parameter.grad.add_(gradient)


def share_gradients(parameters: Sequence[Tensor]) -> None:
    """Adds up the gradients of all processes, on each; every process has to have them for the same parameters."""
    waiting: list[Tensor] = []
    size = 0
    for parameter in parameters:
        if parameter.grad is not None:
            waiting.append(parameter.grad)
            size += parameter.grad.nbytes
        if size >= SHARED_BYTES:
            _share(waiting)
            waiting, size = [], 0
    _share(waiting)


def _share(gradients: Sequence[Tensor]) -> None:
    if not gradients:
        return
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    torch.distributed.all_reduce(flat)
    for gradient, summed in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(summed.view_as(gradient))
