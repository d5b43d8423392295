"""Which blocks `prune` keeps: from importance records, a list, or what to drop."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sanactl.checkpoint.table import Checkpoint
from sanactl.cli.frame.streams import note
from sanactl.errors import InputError, UsageError
from sanactl.files.human import format_ranges
from sanactl.files.json_values import brief, shown
from sanactl.records.journal import Journal
from sanactl.records.records import Record, load_records
from sanactl.surgery.prune import choose_blocks, choose_span
from sanactl.surgery.select import (
    blocks_for_bytes,
    blocks_for_parameters,
    complement,
    parse_blocks,
)

__all__ = ["Choice", "choose", "tell"]

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


def choose(
    parent: Checkpoint,
    records: list[Record],
    importance: Path | None,
    asked: dict[str, str | None],
    *,
    protect: tuple[int, int],
    span: bool,
) -> tuple[list[Choice], Path | None]:
    """A choice for each depth that was asked for, and the file that the importance came from, if it is known.

    Args:
        parent: what is pruned.
        records: those that came with it.
        importance: a file of block records, or None.
        asked: each option that says what stays, to its value; one of them is not None.
        protect: first and last blocks that stay in any case.
        span: drop blocks that lie side by side.

    Raises:
        UsageError: none or several of the options; a number that is none; options that do not go together.
        InputError: no importance records, or those of another checkpoint.
    """
    given = [(option, value) for option, value in asked.items() if value is not None]
    if len(given) != 1:
        raise UsageError(f"prune needs one of {', '.join(asked)}", hint="for example --keep 30")
    option, value = given[0]
    if option in ("--blocks", "--drop"):
        if span or any(protect):
            what = "--span" if span else "--protect-head" if protect[0] else "--protect-tail"
            raise UsageError(
                f"{what} does not go with {option}", hint="it is for --keep, --params and --bytes"
            )
        named = parse_blocks(value, parent.num_blocks)
        kept = named if option == "--blocks" else complement(named, parent.num_blocks)
        values, file = _importance(parent, records, importance, needed=False)
        return [_choice(kept, parent.num_blocks, values)], file
    if option == "--params":
        depths = [blocks_for_parameters(parent, value)]
    elif option == "--bytes":
        depths = [blocks_for_bytes(parent, value)]
    else:
        depths = _depths(value)
    values, file = _importance(parent, records, importance, needed=True)
    assert values is not None
    pick = choose_span if span else choose_blocks
    return [_choice(pick(values, depth, *protect), parent.num_blocks, values) for depth in depths], file


def tell(choice: Choice) -> None:
    """Says on stderr what goes and how much importance it held."""
    total = len(choice.kept) + len(choice.dropped)
    line = f"keeping {len(choice.kept)} of {total} blocks; "
    goes = "goes" if len(choice.dropped) == 1 else "go"
    line += f"{_named(choice.dropped)} {goes}" if choice.dropped else "none goes"
    if choice.share is not None and choice.dropped:
        line += f", with {100 * choice.share:.1f} % of the importance"
    note(line)
    if choice.idle:
        one = len(choice.idle) == 1
        note(
            f"{_named(choice.idle)} {'stays and has' if one else 'stay and have'} no importance:"
            f" {'it changes' if one else 'they change'} nothing, like grow's new blocks before training; train first, or"
            " keep fewer"
        )


def _choice(kept: list[int], blocks: int, values: list[float] | None) -> Choice:
    dropped = sorted(set(range(blocks)) - set(kept))
    if values is None:
        return Choice(kept, dropped)
    total = math.fsum(values)
    share = math.fsum(values[block] for block in dropped) / total if total else 0.0
    return Choice(kept, dropped, share, [block for block in kept if values[block] < _NOTHING])


def _named(blocks: list[int]) -> str:
    return f"block{'s' if len(blocks) > 1 else ''} {format_ranges(blocks)}"


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


def _importance(
    parent: Checkpoint, records: list[Record], file: Path | None, *, needed: bool
) -> tuple[list[float] | None, Path | None]:
    """The importance of each block of `parent`, and the file that it is in, as far as it is known."""
    found = load_records(file, kinds=("block",)) if file else [r for r in records if r["kind"] == "block"]
    where = str(file) if file else "the records"
    remembered = None if file else _remembered(parent)
    if found and remembered is not None and load_records(remembered, kinds=("block",)) == found:
        file = remembered  # they came from it, through a pipe or the journal
    if not found and remembered is not None:
        file, where = remembered, str(remembered)
        found = load_records(file, kinds=("block",))
        note(f"using {file}, the newest importance of {parent.name} in this folder's journal")
    if not found and not needed:
        return None, None
    if not found:
        raise InputError(
            f"no importance records of {parent.source}",
            hint=f"make them: sanactl importance {parent.source} --prompts calib.txt, or name blocks with --blocks",
        )
    return _values(parent, found, where), file


def _values(parent: Checkpoint, found: list[Record], where: str) -> list[float]:
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


def _remembered(parent: Checkpoint) -> Path | None:
    """The newest file of this checkpoint's importance that the folder's journal knows."""
    for run in Journal().newest_first():
        for output in run["outputs"]:
            if output.get("kind") == "block" and output.get("of") == parent.digest:
                path = Path(output["path"])
                if path.is_file():
                    return path
    return None
