"""Finding the importance for `prune` (a file, the pipe, the journal), and describing its choice of blocks."""

from __future__ import annotations

from pathlib import Path

from sanactl.checkpoint.table import Checkpoint
from sanactl.cli.frame.terminal import note
from sanactl.errors import InputError
from sanactl.files.human import format_ranges
from sanactl.records.journal import Journal
from sanactl.records.records import Record, load_records
from sanactl.surgery.choice import Choice, Wish, importance_values

__all__ = ["choose", "tell"]


def choose(
    parent: Checkpoint, records: list[Record], importance: Path | None, wish: Wish
) -> tuple[list[Choice], Path | None]:
    """A choice for each depth that was asked for, and the file that the importance came from, if it is known.

    Args:
        parent: what is pruned.
        records: those that came with it.
        importance: a file of block records, or None.
        wish: what is to stay.

    Raises:
        UsageError: what `Wish.choices` refuses.
        InputError: no importance records, or those of another checkpoint.
    """
    wish.check()
    wish.depths(parent)  # a number that is none is told before files are read
    values, file = _importance(parent, records, importance, needed=wish.by_importance)
    return wish.choices(parent, values), file


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


def _named(blocks: list[int]) -> str:
    return f"block{'s' if len(blocks) > 1 else ''} {format_ranges(blocks)}"


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
    return importance_values(parent, found, where), file


def _remembered(parent: Checkpoint) -> Path | None:
    """The newest file of this checkpoint's importance that the folder's journal knows."""
    for run in Journal().newest_first():
        for output in run["outputs"]:
            if output.get("kind") == "block" and output.get("of") == parent.digest:
                path = Path(output["path"])
                if path.is_file():
                    return path
    return None
