"""Which blocks `prune` keeps: the most important ones, or those that are named."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sanactl.checkpoint.table import Checkpoint
from sanactl.errors import InputError, UsageError
from sanactl.files.json_values import brief, shown
from sanactl.surgery.prune import choose_blocks, choose_span
from sanactl.surgery.select import blocks_for_bytes, blocks_for_parameters, complement, parse_blocks

__all__ = ["Choice", "Wish", "importance_values"]

# A block of less is the identity: what is left of 1 - cosine similarity is rounding.
_NOTHING = 1e-6
_MAX_DEPTHS = 64  # written at once: each is an open file


@dataclass(frozen=True)
class Choice:
    """The blocks that stay and those that go.

    Attributes:
        kept, dropped: ascending block numbers.
        share: of the whole importance that the dropped ones hold, 0 to 1; None where it is not known.
        idle: kept blocks without importance, which change nothing.
    """

    kept: list[int]
    dropped: list[int]
    share: float | None = None
    idle: list[int] | None = None

    def as_fields(self) -> dict[str, Any]:
        """Fields for the child's record."""
        fields: dict[str, Any] = {"dropped": self.dropped}
        return fields if self.share is None else {**fields, "dropped_importance": self.share}


@dataclass(frozen=True)
class Wish:
    """The settings that choose the blocks `prune` keeps. Exactly one of the first five is set.

    Attributes:
        keep: number of blocks to keep, the most important ones; or several numbers: "40,30,20".
        params: keep the number of blocks that comes closest to this number of parameters ("1.6B").
        bytes: keep the number of blocks that fits into a file of this size ("4GB").
        blocks: keep exactly these blocks, from 0; -1 is the last ("0-9,12").
        drop: keep all blocks except these.
        protect: numbers of first and of last blocks that are always kept.
        span: drop one contiguous span of blocks.
    """

    keep: str | None = None
    params: str | None = None
    bytes: str | None = None
    blocks: str | None = None
    drop: str | None = None
    protect: tuple[int, int] = (0, 0)
    span: bool = False

    def check(self) -> None:
        """Raise UsageError if none or several of the five are set, or if options exclude each other."""
        options = {"--keep": self.keep, "--params": self.params, "--bytes": self.bytes}
        named = {"--blocks": self.blocks, "--drop": self.drop}
        given = [option for option, value in {**options, **named}.items() if value is not None]
        if len(given) > 1:
            raise UsageError(f"{' and '.join(given)} exclude each other", hint="give one of them")
        if not given:
            raise UsageError(
                f"prune needs one of {', '.join([*options, *named])}", hint="for example --keep 30"
            )
        if given[0] in named and (self.span or any(self.protect)):
            what = "--span" if self.span else "--protect-head" if self.protect[0] else "--protect-tail"
            raise UsageError(
                f"{what} does not go with {given[0]}", hint="it is for --keep, --params and --bytes"
            )

    @property
    def by_importance(self) -> bool:
        """Whether importance decides which blocks are kept."""
        return self.blocks is None and self.drop is None

    def choices(self, parent: Checkpoint, values: Sequence[float] | None) -> list[Choice]:
        """A choice for each depth that is asked for.

        Args:
            values: the importance of each block; None if it is not known and `by_importance` is false.

        Raises:
            UsageError: as in `check`; or a value is not a number, or a depth or a block does not exist.
        """
        self.check()
        total = parent.num_blocks
        if not self.by_importance:
            named = parse_blocks(self.blocks or self.drop or "", total)
            kept = named if self.blocks is not None else complement(named, total)
            return [_choice(kept, total, values)]
        assert values is not None
        pick = choose_span if self.span else choose_blocks
        return [_choice(pick(values, depth, *self.protect), total, values) for depth in self.depths(parent)]

    def depths(self, parent: Checkpoint) -> list[int]:
        """The numbers of blocks that are asked for; [] if blocks are named.

        Raises:
            UsageError: no number, too many, one twice.
        """
        if self.params is not None:
            return [blocks_for_parameters(parent, self.params)]
        if self.bytes is not None:
            return [blocks_for_bytes(parent, self.bytes)]
        return [] if self.keep is None else _depths(self.keep)


def importance_values(parent: Checkpoint, found: Sequence[Mapping[str, Any]], where: str) -> list[float]:
    """The importance of each block of `parent`, from its block records.

    Args:
        found: block records, one for each block.
        where: what to call them in an error.

    Raises:
        InputError: they are of another checkpoint, or not one for each block.
    """
    other = next((r for r in found if r["digest"] != parent.digest), None)
    if other is not None:
        raise InputError(
            f"{where}: the importance is of another checkpoint ({other['checkpoint']}), not of {parent.path}",
            hint="measure this one with sanactl importance",
        )
    values: dict[int, float] = {}
    for record in found:
        block, importance = record["block"], record["importance"]
        if type(block) is not int or type(importance) not in (int, float) or not abs(importance) <= 1e300:
            raise InputError(f"{where}: block {brief(block)} has importance {brief(importance)}")
        values[block] = float(importance)
    missing = [i for i in range(parent.num_blocks) if i not in values]
    if missing or len(values) != parent.num_blocks:
        what = f"block {missing[0]} is missing" if missing else f"{len(values)} blocks"
        raise InputError(f"{where}: not one record for each of {parent.num_blocks} blocks ({what})")
    return [values[i] for i in range(parent.num_blocks)]


def _choice(kept: list[int], blocks: int, values: Sequence[float] | None) -> Choice:
    dropped = sorted(set(range(blocks)) - set(kept))
    if values is None:
        return Choice(kept, dropped)
    total = math.fsum(values)
    share = math.fsum(values[block] for block in dropped) / total if total else 0.0
    return Choice(kept, dropped, share, [block for block in kept if values[block] < _NOTHING])


def _depths(keep: str) -> list[int]:
    try:
        depths = [int(part) for part in keep.split(",")]
    except ValueError:
        raise UsageError(
            f"--keep {shown(keep)} is no number of blocks", hint="for example --keep 30 or 40,30,20"
        ) from None
    if len(depths) > _MAX_DEPTHS:
        raise UsageError(f"--keep asks for {len(depths):,} depths; it takes at most {_MAX_DEPTHS}")
    if len(set(depths)) < len(depths):
        raise UsageError(f"--keep {shown(keep)} asks for one depth twice")
    return depths
