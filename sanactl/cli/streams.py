"""Where a command's input comes from, and how its output leaves: streams, files, the journal.

First that applies: the argument (or `-`), a pipe on stdin, the newest fitting artifact in the folder's journal, the
built-in world. Which one it was is said on stderr.
"""

from __future__ import annotations

import os
import stat
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from sanactl.errors import InputError, UsageError
from sanactl.io.builtin import asset
from sanactl.io.checkpoint import Checkpoint, open_checkpoint
from sanactl.io.journal import Journal
from sanactl.io.records import Record, load_records, read_records

__all__ = ["ANNOUNCE_AFTER", "find_checkpoint", "find_records", "note", "stdin_is_piped", "stdin_records"]

# Seconds of silence on a pipe after which a person is told what is being waited for.
ANNOUNCE_AFTER = 5.0


def note(line: str) -> None:
    """One line for people, on stderr."""
    print(f"sanactl: {line}", file=sys.stderr, flush=True)


def stdin_is_piped() -> bool:
    """Whether stdin is a pipe or a file, from which records may come (a terminal or /dev/null is neither)."""
    try:
        mode = os.fstat(0).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


def stdin_records(kinds: tuple[str, ...], default_kind: str | None = None) -> Iterator[Record]:
    """Records from stdin as they arrive; says so once if nothing comes for some seconds."""
    timer = threading.Timer(
        ANNOUNCE_AFTER, note, ["waiting for records on stdin (a pipe); </dev/null if none will come"]
    )
    timer.daemon = True
    timer.start()
    try:
        with open(0, encoding="utf-8", closefd=False) as stream:
            for record in read_records(stream, "stdin", kinds=kinds, default_kind=default_kind):
                timer.cancel()
                yield record
    finally:
        timer.cancel()


def _checkpoint_of(record: Record) -> str:
    """The checkpoint that a record speaks of."""
    return str(record["path"] if record["kind"] == "checkpoint" else record["checkpoint"])


def find_checkpoint(
    argument: str | None, *, revision: str | None = None, also: tuple[str, ...] = ()
) -> tuple[Checkpoint, list[Record]]:
    """The checkpoint to work on, and the records that came with it through the pipe.

    A checkpoint record names it; block records name theirs. With kinds in `also` (prompts for `sample`, images for
    `finetune`) the pipe may bring those instead, and is read for them when the checkpoint is named, too.

    Raises:
        InputError: what is named is no SANA checkpoint; the pipe brought no record of one.
    """
    if argument not in (None, "-"):
        assert argument is not None
        found = open_checkpoint(argument, revision=revision)
        return found, list(stdin_records(also)) if also and stdin_is_piped() else []
    if argument == "-" or stdin_is_piped():
        records = list(stdin_records(("checkpoint", "block", *also)))
        if not records:
            raise InputError(
                f"stdin brought no {' or '.join(('checkpoint', *also))} record",
                hint="the command before may have failed; else name a checkpoint",
            )
        named = [r for r in records if r["kind"] in ("checkpoint", "block")]
        if named:
            return open_checkpoint(_checkpoint_of(named[-1])), records
        return _remembered_checkpoint()[0], records
    return _remembered_checkpoint()


def _remembered_checkpoint() -> tuple[Checkpoint, list[Record]]:
    """The newest checkpoint or importance of the folder's journal, else the built-in base."""
    newest = Journal().newest("checkpoint", "block")
    if newest is not None:
        if newest["kind"] == "block":
            records = load_records(Path(newest["path"]), kinds=("block",))
            if records:
                found = open_checkpoint(_checkpoint_of(records[0]))
                note(f"using {found.path} with {newest['path']}, the newest in this folder's journal")
                return found, records
        else:
            note(f"using {newest['path']}, the newest checkpoint in this folder's journal")
            return open_checkpoint(newest["path"]), []
    note("using the built-in shapes base")
    return open_checkpoint(asset("base.st")), []


def find_records(argument: str | None, kinds: tuple[str, ...], *, what: str) -> tuple[Iterator[Record], str]:
    """A stream of records and its name.

    Args:
        argument: a JSONL file, `-`, or None.
        kinds: what is wanted, the first being what the journal is asked for.
        what: how to call them in an error ("images to judge").

    Raises:
        UsageError: there is no input at all.
    """
    if argument not in (None, "-"):
        assert argument is not None
        return iter(load_records(Path(argument), kinds=kinds)), argument
    if argument == "-" or stdin_is_piped():
        return stdin_records(kinds), "stdin"
    newest = Journal().newest(kinds[0])
    if newest is None:
        raise UsageError(
            f"no {what}", hint="name a file of records, or pipe them in: sanactl sample | sanactl judge"
        )
    note(f"using {newest['path']}, the newest {kinds[0]} records in this folder's journal")
    return iter(load_records(Path(newest["path"]), kinds=kinds)), newest["path"]
