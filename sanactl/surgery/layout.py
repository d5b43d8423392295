"""Where each block of a grown model comes from, as numbers: no tensors, no files."""

from __future__ import annotations

from dataclasses import dataclass

from sanactl.errors import UsageError
from sanactl.files.json_values import brief

__all__ = ["INITS", "Mixed", "New", "Slot", "layout"]

INITS = ("partial", "cyclic", "replicate", "progressive", "interpolate")


@dataclass(frozen=True)
class New:
    """A block with random weights."""


@dataclass(frozen=True)
class Mixed:
    """A block computed from kept ones: (1 - alpha) lower + alpha upper, plus the noise of `steps` steps.

    Attributes:
        lower, upper: numbers of kept blocks.
        alpha: weight of `upper`.
        steps: its distance from `lower`, in noisy copies; 0 for no noise.
    """

    lower: int
    upper: int
    alpha: float = 0.0
    steps: int = 0


Slot = int | New | Mixed  # an int is that block of the parent, byte for byte


def layout(kept: int, to: int, init: str, position: str | int = "end") -> list[Slot]:
    """The source of each of the `to` blocks of the grown model; `kept` blocks of the parent are kept.

    >>> layout(2, 5, "cyclic"), layout(2, 5, "replicate")
    ([0, 1, 0, 1, 0], [0, 0, 0, 1, 1])

    Raises:
        UsageError: the position is unknown, or is given for cyclic or replicate, whose copies have fixed places.
    """
    if init in ("cyclic", "replicate"):
        if position != "end":
            raise UsageError(
                f"{init} growth takes no position", hint="it is for partial, progressive and interpolate"
            )
        if init == "cyclic":
            return [index % kept for index in range(to)]
        each, extra = divmod(to, kept)
        return [block for block in range(kept) for _ in range(each + (block < extra))]
    slots: list[Slot] = []
    for before, count in enumerate(_gaps(kept, to - kept, position)):
        # `before` kept blocks are before this gap, and block `before` is after it
        slots += [_slot(kept, to, init, before, number, count) for number in range(count)]
        slots += [before] if before < kept else []
    return slots


def _gaps(kept: int, new: int, position: str | int) -> list[int]:
    """Number of new blocks in each of the `kept` + 1 gaps before, between and after the kept blocks."""
    gaps = [0] * (kept + 1)
    if position == "end":
        gaps[kept] = new
    elif position == "interleave":
        # the first and last blocks are the most important (figure 5a), so they stay in place
        inner = range(1, kept) or range(1, 2)
        each, extra = divmod(new, len(inner))
        for number, gap in enumerate(inner):
            gaps[gap] = each + (number < extra)
    elif isinstance(position, int) and 0 <= position <= kept:
        gaps[position] = new
    else:
        raise UsageError(
            f"there is no position {brief(position)} for new blocks",
            hint=f"say end, interleave, or 0 to {kept}",
        )
    return gaps


def _slot(kept: int, to: int, init: str, before: int, number: int, count: int) -> Slot:
    """New block `number` of `count` in the gap after `before` kept blocks."""
    last = max(before - 1, 0)
    if init == "partial":
        return New()
    if init == "progressive":
        return Mixed(last, last, steps=number + 1)
    if before == kept:
        # As in the reference: kept blocks are spread over the new depth, and new ones are interpolated (init_interpolation).
        lower, remainder = divmod((kept + number) * kept, to)
        return Mixed(lower, min(lower + 1, kept - 1), remainder / to)
    return Mixed(last, before, (number + 1) / (count + 1))
