"""Choosing the blocks that pruning keeps, from a list of blocks, a number of parameters, or a file size."""

from __future__ import annotations

import math
import re

from sanactl.checkpoint.table import Checkpoint
from sanactl.checkpoint.write import parse_size
from sanactl.errors import UsageError
from sanactl.files.json_values import brief

__all__ = [
    "blocks_for_bytes",
    "blocks_for_parameters",
    "complement",
    "parse_blocks",
    "parse_parameters",
]

_METADATA = 8192  # bytes reserved for the config and the lineage in a header
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "G": 10**9, "T": 10**12}


def parse_blocks(text: str, blocks: int) -> list[int]:
    """Block numbers from "0-9,12,-1": numbers and ranges (both ends included), from 0; -1 is the last block.

    Args:
        text: the user's text.
        blocks: number of blocks of the model.

    Returns:
        the numbers in ascending order, each once.

    Raises:
        UsageError: a part is not a number or a range, or the model has no such block.
    """
    spans: list[tuple[int, int]] = []
    for part in dict.fromkeys(text.split(",")):
        match = re.fullmatch(r"\s*(-?[0-9]{1,9})\s*(?:-\s*(-?[0-9]{1,9}))?\s*", part)
        if match is None:
            raise UsageError(f"{brief(text)} names no blocks", hint="write them like 0-9,12")
        ends = [
            int(end) + (blocks if end.startswith("-") else 0) for end in match.groups() if end is not None
        ]
        if wrong := [end for end in match.groups() if end is not None and not -blocks <= int(end) < blocks]:
            raise UsageError(
                f"there is no block {wrong[-1]}",
                hint=f"the blocks are 0 to {blocks - 1}, or -1 to -{blocks} from the end",
            )
        if ends[0] > ends[-1]:
            raise UsageError(
                f"the blocks {part.strip()} are no range: {ends[0]} comes after {ends[-1]}",
                hint=f"write {ends[-1]}-{ends[0]}",
            )
        spans.append((ends[0], ends[-1] + 1))
    chosen: list[int] = []
    for start, stop in sorted(spans):  # each block is visited once, even if it is named often
        chosen += range(max(start, chosen[-1] + 1 if chosen else 0), stop)
    return chosen


def complement(dropped: list[int], blocks: int) -> list[int]:
    """The blocks that remain when `dropped` are removed.

    Raises:
        UsageError: no block remains.
    """
    gone = set(dropped)
    kept = [block for block in range(blocks) if block not in gone]
    if not kept:
        raise UsageError("that would drop every block", hint="keep at least one")
    return kept


def parse_parameters(text: str | float) -> float:
    """A number of parameters from "1.6B", "600M" or a number.

    Raises:
        UsageError: it is not a number, or is zero.
    """
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?(?:E[0-9]+)?)\s*([KMBGT]?)\s*", str(text).upper())
    number = float(match[1]) * _UNITS[match[2]] if match else 0.0
    if not 0 < number < math.inf:
        raise UsageError(f"{brief(text)} is not a number of parameters", hint="write it like 1.6B or 600M")
    return number


def blocks_for_parameters(checkpoint: Checkpoint, parameters: str | float) -> int:
    """The number of blocks that comes closest to a number of parameters (for SANA-1.5, "1.6B" gives 20 blocks).

    Raises:
        UsageError: the number is outside the range from one block to all blocks.
    """
    wanted = parse_parameters(parameters)
    block = sum(math.prod(ref.shape) for ref in checkpoint.block_tensors(0).values())
    outside = checkpoint.num_parameters - block * checkpoint.num_blocks
    blocks = round((wanted - outside) / block)
    if not 1 <= blocks <= checkpoint.num_blocks:
        raise UsageError(
            f"no number of blocks gives {parameters} parameters",
            hint=f"1 to {checkpoint.num_blocks} blocks give {outside + block:,} to {checkpoint.num_parameters:,}",
        )
    return blocks


def blocks_for_bytes(checkpoint: Checkpoint, size: str | int) -> int:
    """The number of blocks that fit into a file of this size ("4GB"); each is counted with the largest block's bytes.

    Raises:
        UsageError: not even one block fits.
    """
    limit = parse_size(size, "--bytes")
    largest = max(
        sum(ref.nbytes for ref in checkpoint.block_tensors(index).values())
        for index in range(checkpoint.num_blocks)
    )
    outside = sum(ref.nbytes for ref in checkpoint.outer_tensors().values())
    largest += (
        sum(start for _, start in checkpoint.headers) // checkpoint.num_blocks
    )  # its part of the header
    blocks = min(checkpoint.num_blocks, (limit - outside - _METADATA) // largest)
    if blocks < 1:
        raise UsageError(
            f"not even one block fits into {size}",
            hint=f"one block of {checkpoint.ref} needs {outside + _METADATA + largest:,} bytes",
        )
    return int(blocks)
