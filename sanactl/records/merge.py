"""The outputs of all shards of a run as one: complete, each record once, in the order of a run without `--shard`."""

from __future__ import annotations

import hashlib
import heapq
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sanactl.errors import InputError, UsageError
from sanactl.files.regular import open_regular
from sanactl.records.jsonl import MAX_LINE, dump_json, parse_json
from sanactl.records.records import SHARD, Record, check_record
from sanactl.records.shards import Shard, read_shard

__all__ = ["Part", "check_output", "merged", "read_parts"]

_BEGIN = dump_json({"kind": SHARD})[:-1].encode()
_SHOWN = 20  # missing shards in an error
_WORDS = {"guard-blocked": "guard's blocked prompts", "scale-images": "scale's images"}


@dataclass(frozen=True)
class Part:
    """The output of one shard: where its lines are, and what its last record says.

    Attributes:
        name: of the file, for errors.
        offsets: of its lines in the file, and of their end.
        places: (first place, step, groups, records of each).
    """

    path: Path
    name: str
    shard: Shard
    command: str
    key: str
    groups: int
    taken: int
    places: list[tuple[int, int, int, int]]
    offsets: array[int]

    @property
    def outputs(self) -> str:
        """Whose outputs these are, in words: the command's, or one of two kinds of it."""
        return _WORDS.get(self.command, self.command)

    @property
    def what(self) -> str:
        return f"{self.name}: shard {self.shard} of {self.outputs}"

    def in_order(self, number: int) -> Iterator[tuple[int, int, int, int]]:
        """(place, `number`, number of its first line, number of lines) of each group."""
        line = 0
        for first, step, groups, size in self.places:
            for group in range(groups):
                yield first + group * step, number, line, size
                line += size


def read_parts(paths: Sequence[Path], names: Mapping[Path, str] | None = None) -> list[Part]:
    """The shards in some files, all of them, by their numbers. A file may hold several, one after the other.

    Args:
        names: of the files that errors call by another name than their path: "stdin" for a copy of it.

    Raises:
        InputError: a file is no shard's, or was cut or changed; shards of different runs; one is missing or there twice.
    """
    parts = [part for path in paths for part in _parts_of(path, (names or {}).get(path) or str(path))]
    first = parts[0]
    for part in parts[1:]:
        if part.command != first.command:
            raise InputError(f"{part.what}, and {first.name} has one of {first.outputs}")
        if part.shard.of != first.shard.of:
            raise InputError(
                f"{part.what}, and {first.name} has shard {first.shard}: not one division of the work",
                hint=f"leave out or remove {_leftover(parts)}, if it is left of an earlier run",
            )
        if (part.key, part.groups) != (first.key, first.groups):
            raise InputError(
                f"{part.what} is of other settings or another input than shard {first.shard} in {first.name}"
            )
    known: dict[int, Part] = {}
    for part in parts:
        twin = known.setdefault(part.shard.part, part)
        if twin is not part:
            raise InputError(
                f"shard {part.shard} is there twice: in {twin.name} and {part.name}", hint="give it once"
            )
    lacking = [str(Shard(n, first.shard.of)) for n in range(first.shard.of) if n not in known]
    if lacking:
        more = f" and {len(lacking) - _SHOWN:,} more" if len(lacking) > _SHOWN else ""
        verb = "is" if len(lacking) == 1 else "are"
        raise InputError(
            f"shard{'s' * (len(lacking) > 1)} {', '.join(lacking[:_SHOWN])}{more} {verb} missing",
            hint=f"run sanactl {first.command.split('-')[0]} with --shard {lacking[0]}",
        )
    found = [known[number] for number in sorted(known)]
    taken = sum(part.taken for part in found)
    if taken != first.groups:
        raise InputError(f"the shards have {taken:,} groups together, and the input {first.groups:,}")
    return found


def check_output(parts: Sequence[Part], target: Path) -> None:
    """Refuses an output that is one of the files to merge.

    Raises:
        UsageError: it is.
    """
    for part in parts:
        if target.exists() and target.samefile(part.path):
            raise UsageError(f"{target} is one of the files to merge", hint="name another with -o")


def _leftover(parts: Sequence[Part]) -> str:
    """A file of the division of which fewer shards are there."""
    count = Counter(part.shard.of for part in parts)
    return min(parts, key=lambda part: count[part.shard.of] / part.shard.of).name


def merged(parts: Sequence[Part]) -> Iterator[Record]:
    """The records of all parts in the order of a run without `--shard`.

    Raises:
        InputError: two shards have records of one place.
    """
    streams = [part.in_order(number) for number, part in enumerate(parts)]
    files = [open_regular(part.path) for part in parts]
    before = -1
    try:
        for place, number, line, size in heapq.merge(*streams):
            if place <= before:
                raise InputError(f"{parts[number].what} has records of a place that another shard has, too")
            before = place
            part, file = parts[number], files[number]
            file.seek(part.offsets[line])
            for _ in range(size):
                yield _record(file.readline(), part.name)
    finally:
        for file in files:
            file.close()


def _record(line: bytes, name: str) -> Record:
    try:
        return check_record(parse_json(line.decode()), name)
    except ValueError as error:
        raise InputError(f"{name}: not a record ({error})") from None


def _parts_of(path: Path, name: str) -> Iterator[Part]:
    """The shards in a file."""
    offsets, lines, at, found = array("q", [0]), hashlib.sha256(), 0, False
    try:
        with open_regular(path) as file:
            while line := file.readline(MAX_LINE + 2):
                if not line.endswith(b"\n"):
                    break
                at += len(line)
                if line.startswith(_BEGIN):
                    yield _part(path, name, line, offsets, f"sha256:{lines.hexdigest()}")
                    offsets, lines, found = array("q", [at]), hashlib.sha256(), True
                else:
                    lines.update(line)
                    offsets.append(at)
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({(error.strerror or str(error)).lower()})") from None
    if not found or line or len(offsets) > 1:
        what = "does not end with a shard's record, so it is cut short or not an output of --shard"
        raise InputError(
            f"{name}: {what if at or line else 'is empty'}",
            hint="give the files that commands with --shard wrote",
        )


def _part(path: Path, name: str, line: bytes, offsets: array[int], digest: str) -> Part:
    """The shard that a last record tells of."""
    try:
        end: Any = parse_json(line.decode())
        shard = read_shard(end["shard"])
        rows = [tuple(row) for row in end["places"]]
        numbers = [end["groups"], end["taken"], end["records"], *(n for row in rows for n in row)]
        texts = [end["command"], end["key"], end["digest"]]
        if (
            shard is None
            or not all(type(n) is int and n >= 0 for n in numbers)
            or not all(map(_is_text, texts))
        ):
            raise ValueError("impossible values")
        if any(len(row) != 4 or not row[1] or not row[2] or not row[3] for row in rows):
            raise ValueError("impossible places")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{name}: a shard's record that cannot be read ({error})") from None
    said = f"{name}: shard {shard} of {_WORDS.get(end['command'], end['command'])}"
    count = len(offsets) - 1
    if count != end["records"] or count != sum(row[2] * row[3] for row in rows):
        raise InputError(f"{said} has {count:,} records, and wrote {end['records']:,}", hint="run it again")
    if digest != end["digest"]:
        raise InputError(
            f"{said} was changed after it was written", hint="run it again, or merge before other commands"
        )
    ordered = [row[0] for row in rows] + [2**62]
    if any(row[0] + row[1] * (row[2] - 1) >= after for row, after in zip(rows, ordered[1:], strict=True)):
        raise InputError(f"{said} has records out of order")
    return Part(path, name, shard, end["command"], end["key"], end["groups"], end["taken"], rows, offsets)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) < 200 and value.isprintable()
