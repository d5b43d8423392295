"""Which or how many blocks stay, from what a user asks for: a size, a number of parameters, a list of blocks."""

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

_METADATA = 8192  # bytes kept for what a header says beside its tensors: config and lineage
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "G": 10**9, "T": 10**12}


def parse_blocks(text: str, blocks: int) -> list[int]:
    """Block numbers from "0-9,12,-1": single ones and closed ranges, counted from 0; -1 is the last block.

    Args:
        text: what the user wrote.
        blocks: number of blocks there are.

    Returns:
        the numbers in ascending order, each once.

    Raises:
        UsageError: not a number or a range, or no such block.
    """
    spans: list[tuple[int, int]] = []
    for part in dict.fromkeys(text.split(",")):
        match = re.fullmatch(r"\s*(-?[0-9]{1,9})\s*(?:-\s*(-?[0-9]{1,9}))?\s*", part)
        if match is None:
            raise UsageError(f"{brief(text)} names no blocks", hint="write them like 0-9,12")
        ends = [
            int(end) + (blocks if end.startswith("-") else 0) for end in match.groups() if end is not None
        ]
        if not 0 <= ends[0] <= ends[-1] < blocks:
            raise UsageError(f"there are no blocks {part.strip()}", hint=f"the blocks are 0 to {blocks - 1}")
        spans.append((ends[0], ends[-1] + 1))
    chosen: list[int] = []
    for start, stop in sorted(spans):  # each block is touched once, however often it is named
        chosen += range(max(start, chosen[-1] + 1 if chosen else 0), stop)
    return chosen


def complement(dropped: list[int], blocks: int) -> list[int]:
    """The blocks that stay when `dropped` go.

    Raises:
        UsageError: none stays.
    """
    gone = set(dropped)
    kept = [block for block in range(blocks) if block not in gone]
    if not kept:
        raise UsageError("that would drop every block", hint="keep at least one")
    return kept


def parse_parameters(text: str | float) -> float:
    """A number of parameters from "1.6B", "600M" or a number.

    Raises:
        UsageError: no such number, or zero.
    """
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?(?:E[0-9]+)?)\s*([KMBGT]?)\s*", str(text).upper())
    number = float(match[1]) * _UNITS[match[2]] if match else 0.0
    if not 0 < number < math.inf:
        raise UsageError(f"{brief(text)} is no number of parameters", hint="write it like 1.6B or 600M")
    return number


def blocks_for_parameters(checkpoint: Checkpoint, parameters: str | float) -> int:
    """How many blocks come closest to a number of parameters ("1.6B" is 20 blocks of SANA-1.5's 1,604,641,952).

    Raises:
        UsageError: no depth between one block and all comes that close.
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
    """How many blocks fit into a file of at most this size ("4GB"); blocks are counted at the largest one's bytes.

    Raises:
        UsageError: not even one block fits.
    """
    limit = parse_size(size)
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
