"""Depth pruning: keep the most important blocks (section 2.4 and figure 5)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from sanactl.checkpoint.table import Checkpoint
from sanactl.checkpoint.write import Plan
from sanactl.errors import InputError, UsageError
from sanactl.surgery.blocks import child_plan, copied_block

__all__ = ["choose_blocks", "choose_span", "plan_prune"]


def plan_prune(checkpoint: Checkpoint, keep: Sequence[int]) -> Plan:
    """The plan of a checkpoint that keeps only some blocks, in their order.

    Args:
        checkpoint: the parent.
        keep: numbers of the kept blocks, from 0, in any order.

    Raises:
        UsageError: there is no block, a block is named twice, or a block does not exist.
    """
    kept = sorted(keep)
    if not kept:
        raise UsageError("pruning would leave no block", hint="keep at least one")
    if len(set(kept)) != len(kept):
        twice = next(block for block, following in pairwise(kept) if block == following)
        raise UsageError(f"block {twice} is named twice")
    if kept[0] < 0 or kept[-1] >= checkpoint.num_blocks:
        wrong = kept[0] if kept[0] < 0 else kept[-1]
        raise UsageError(
            f"{checkpoint.ref} has no block {wrong}", hint=f"its blocks are 0 to {checkpoint.num_blocks - 1}"
        )
    blocks = [copied_block(checkpoint, index) for index in kept]
    return child_plan(checkpoint, blocks, command="prune", arguments={"blocks": kept})


def choose_blocks(
    importance: Sequence[float], keep: int, protect_head: int = 0, protect_tail: int = 0
) -> list[int]:
    """The blocks that pruning keeps: the `keep` most important ones, in their order.

    Args:
        importance: of each block, from the first to the last.
        keep: number of blocks to keep.
        protect_head: number of first blocks that are always kept.
        protect_tail: number of last blocks that are always kept.

    Returns:
        ascending block numbers. Of two equally important blocks, the earlier one is kept.

    Raises:
        UsageError: `keep` is below 1, above the number of blocks, or below the number of protected ones.
        InputError: an importance is not a number.
    """
    _check(importance, keep, protect_head, protect_tail)
    total = len(importance)
    protected = {*range(protect_head), *range(total - protect_tail, total)}
    ranked = sorted(range(total), key=lambda block: (block not in protected, -importance[block], block))
    return sorted(ranked[:keep])


def choose_span(
    importance: Sequence[float], keep: int, protect_head: int = 0, protect_tail: int = 0
) -> list[int]:
    """The blocks that remain after dropping one contiguous span, the one with the least total importance.

    Layer-pruning work on language models removes such spans (Gromov et al. 2024, "The Unreasonable Ineffectiveness of the
    Deeper Layers"). The paper of SANA-1.5 drops the least important blocks, wherever they are (`choose_blocks`).

    Args, Raises: as in `choose_blocks`.

    Returns:
        ascending block numbers. Of two equally important spans, the later one is dropped.
    """
    _check(importance, keep, protect_head, protect_tail)
    total = len(importance)
    length = total - keep
    starts = range(protect_head, total - protect_tail - length + 1)
    start = min(starts, key=lambda first: (math.fsum(importance[first : first + length]), -first))
    return [*range(start), *range(start + length, total)]


def _check(importance: Sequence[float], keep: int, protect_head: int, protect_tail: int) -> None:
    total = len(importance)
    if not 1 <= keep <= total:
        raise UsageError(f"cannot keep {keep} of {total} blocks", hint=f"keep 1 to {total}")
    if protect_head < 0 or protect_tail < 0 or protect_head + protect_tail > keep:
        raise UsageError(
            f"cannot protect {protect_head} first and {protect_tail} last blocks and keep {keep} in all"
        )
    for block, value in enumerate(importance):
        if not math.isfinite(value):
            raise InputError(
                f"the importance of block {block} is {value}", hint="measure it again in fp32 or bf16"
            )
