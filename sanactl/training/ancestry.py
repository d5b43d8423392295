"""What a checkpoint's lineage says about its blocks: which of an ancestor's blocks they are, and which `grow` added.

Anybody can write a header, so every entry is checked before it is used; an entry with a fault is not used.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sanactl.errors import UsageError

if TYPE_CHECKING:
    from sanactl.checkpoint.open import Checkpoint
    from sanactl.surgery.layout import Slot

__all__ = ["Unknown", "kept_blocks", "new_blocks", "trace_blocks"]

_MOST_BLOCKS = 1 << 16
# Commands whose result has the blocks of its parent, each in its place.
_SAME_BLOCKS = ("convert", "finetune")


class Unknown(Exception):
    """The lineage does not say; the message has the reason."""


def kept_blocks(student: Checkpoint, teacher: Checkpoint) -> list[int] | None:
    """As `trace_blocks`, or None where that raises."""
    try:
        return trace_blocks(student, teacher)
    except Unknown:
        return None


def trace_blocks(student: Checkpoint, teacher: Checkpoint) -> list[int]:
    """The teacher's number of each of the student's blocks, ascending.

    The student's lineage is followed back over commands that keep blocks (`convert`, `finetune`, QK norms) and over
    `prune`, until it reaches the teacher, or to a checkpoint from which the teacher was made by commands that keep blocks.

    Raises:
        Unknown: it does not reach the teacher, or the student was grown in between.
    """
    blocks = list(range(student.num_blocks))
    same, blocks, grown = set(_same_as(teacher)), list(range(student.num_blocks)), False
    found = student.digest in same or _is_known_as(teacher, student.lineage)
    for place in range(len(student.lineage) - 1, -1, -1):
        if found:
            break
        entry = _Entry(student.lineage[place])
        if entry.command == "grow" and not entry.keeps_blocks:
            grown = True
        elif not entry.keeps_blocks and not grown:
            kept = entry.pruned_to()
            if kept is None or blocks[-1] >= len(kept):
                break
            blocks = [kept[block] for block in blocks]
        found = entry.parent in same or _is_known_as(teacher, student.lineage[:place])
    if found and grown:
        raise Unknown(f"{student.path} was not only pruned but grown since it was {teacher.path}")
    if not found or blocks[-1] >= teacher.num_blocks:
        raise Unknown(f"{student.path} does not tell which blocks of {teacher.path} it kept")
    return blocks


def new_blocks(checkpoint: Checkpoint) -> list[int]:
    """The blocks that the last `grow` of a checkpoint's lineage added, copies included; ascending.

    Raises:
        UsageError: the lineage does not say.
    """
    at: list[int] = list(range(checkpoint.num_blocks))  # numbers of the blocks as the walk goes back
    for place in range(len(checkpoint.lineage) - 1, -1, -1):
        entry = _Entry(checkpoint.lineage[place])
        if entry.keeps_blocks:
            continue
        kept = entry.pruned_to()
        if kept is not None and at[-1] < len(kept):
            at = [kept[block] for block in at]
            continue
        slots = entry.grown_to(checkpoint.lineage[place - 1] if place else None)
        if slots is None or at[-1] >= len(slots):
            break
        first = {slot: n for n, slot in reversed(list(enumerate(slots)))}
        added = {n for n, slot in enumerate(slots) if not isinstance(slot, int) or first[slot] < n}
        return [number for number, block in enumerate(at) if block in added]
    raise UsageError(
        f"--train-new-blocks-only: the header of {checkpoint.path} does not tell which blocks are new",
        hint="it takes a checkpoint that sanactl grow made",
    )


class _Entry:
    """One step of a lineage, with its fields checked.

    Attributes:
        command: "prune" and the like; "" where it is no text.
        parent: the digest of the checkpoint that the command took; None where there is none.
    """

    def __init__(self, entry: Any) -> None:
        self.entry: dict[str, Any] = entry if isinstance(entry, dict) else {}
        arguments, command = self.entry.get("arguments"), self.entry.get("command")
        self.arguments: dict[str, Any] = arguments if isinstance(arguments, dict) else {}
        self.command = command if isinstance(command, str) else ""
        parents = self.entry.get("parents")
        first = parents[0] if isinstance(parents, list) and parents else None
        digest = first.get("digest") if isinstance(first, dict) else None
        self.parent = digest if isinstance(digest, str) else None

    @property
    def keeps_blocks(self) -> bool:
        only_norms = (
            self.command == "grow" and "to" not in self.arguments and bool(self.arguments.get("qk_norm"))
        )
        return self.command in _SAME_BLOCKS or only_norms

    def pruned_to(self) -> list[int] | None:
        """The parent's numbers of the blocks that a `prune` kept, ascending; None for anything else."""
        kept = self.arguments.get("blocks")
        if self.command != "prune" or not isinstance(kept, list) or len(kept) != _count(self.entry, "blocks"):
            return None
        if (
            not kept
            or any(type(block) is not int or block < 0 for block in kept)
            or sorted(set(kept)) != kept
        ):
            return None
        return kept

    def grown_to(self, before: Any) -> list[Slot] | None:
        """What each block of a `grow`'s result is (`layout`); None for anything else.

        Args:
            before: the entry before this one, for old headers that leave out how many blocks the parent had.
        """
        from sanactl.surgery.layout import INITS, layout

        if self.command != "grow":
            return None
        to, count = _count(self.arguments, "to"), _count(self.arguments, "from")
        count = count or _count(before if isinstance(before, dict) else {}, "blocks")
        dropped = self.arguments.get("drop_last", 0)
        if to is None or to != _count(self.entry, "blocks") or count is None or type(dropped) is not int:
            return None
        init, position = self.arguments.get("init"), self.arguments.get("position", "end")
        if init not in INITS or type(position) not in (str, int) or not 1 <= count - dropped <= to:
            return None
        try:
            return layout(count - dropped, to, init, position)
        except UsageError:
            return None


def _count(entry: dict[str, Any], key: str) -> int | None:
    value = entry.get(key)
    return value if type(value) is int and 1 <= value <= _MOST_BLOCKS else None


def _same_as(teacher: Checkpoint) -> Iterator[str]:
    """Digests of the teacher and of what it was made from by commands that keep every block."""
    yield teacher.digest
    for written in reversed(teacher.lineage):
        entry = _Entry(written)
        if not entry.keeps_blocks or entry.parent is None:
            return
        yield entry.parent


def _is_known_as(teacher: Checkpoint, lineage: list[dict[str, Any]]) -> bool:
    """Whether the teacher has exactly this history; then it is that checkpoint, possibly in another format."""
    return bool(lineage) and lineage == teacher.lineage
