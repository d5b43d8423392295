"""The journal of a folder: `.sanactl/journal.jsonl`, one line for each run.

Several commands of a pipe write to it at once, so each line is one append under a lock (flock, where the file system
supports it). A line is

    {"time", "command", "argv", "version", "seconds", "seed", "key",
     "inputs": [{"path", "digest"}], "outputs": [{"path", "kind", "digest", ...}]}

with paths relative to the folder. `key` is a digest of everything that decides the output: the same key means the same
output.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from sanactl.errors import InputError
from sanactl.files.append import append_lines
from sanactl.files.content import json_digest
from sanactl.files.regular import open_regular
from sanactl.records.fields import JOURNAL, JOURNAL_FILE, check_fields, with_paths
from sanactl.records.jsonl import MAX_LINE, dump_json, parse_json

__all__ = ["Journal", "Run", "run_key"]

_BLOCK = 2**18  # bytes per read, from the end of the file


def run_key(command: str, **settings: Any) -> str:
    """A digest of everything that a run's output depends on."""
    return json_digest({"command": command, **settings})[:32]


@dataclass
class Run:
    """One run of a command, as it will be written into the journal.

    Attributes:
        command: the command's name ("grow").
        argv: its arguments.
        version: of sanactl.
        seed: the seed of its random numbers; None if it draws none.
        key: of `run_key`; None if the output is not reproducible.
        inputs: {"path", "digest"} of each input.
        outputs: {"path", "kind", "digest", ...} of each output.
    """

    command: str
    argv: list[str]
    version: str
    seed: int | None = None
    key: str | None = None
    inputs: list[dict[str, Any]] = field(default_factory=list)
    outputs: list[dict[str, Any]] = field(default_factory=list)


class Journal:
    """The journal of a folder, by default the current folder.

    No method raises if the journal is damaged or cannot be written, because commands work without it. A line that is not
    an entry, or whose fields are not of the types in `JOURNAL`, is skipped. At most one line is held in memory.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or Path.cwd()
        self.path = self.folder / ".sanactl" / "journal.jsonl"

    def runs(self) -> Iterator[dict[str, Any]]:
        """All runs, oldest first; `inputs` and `outputs` are lists of objects that have a `path`."""
        with contextlib.suppress(OSError, InputError), open_regular(self.path) as stream:
            while line := stream.readline(MAX_LINE + 2):
                if not line.endswith(b"\n") and len(line) > MAX_LINE:
                    _pass_over(stream)
                elif (entry := _entry(line)) is not None:
                    yield entry

    def newest_first(self) -> Iterator[dict[str, Any]]:
        """All runs, newest first. They are read from the end of the file, because searches mostly want recent runs."""
        with contextlib.suppress(OSError, InputError), open_regular(self.path) as stream:
            for line in _backwards(stream):
                if (entry := _entry(line)) is not None:
                    yield entry

    def newest(self, *kinds: str, fits: Callable[[Path], bool] | None = None) -> dict[str, Any] | None:
        """The newest output of one of `kinds` whose file still exists: {"path" (absolute), "kind", "digest", ...}.

        Args:
            fits: skip files for which this is false.
        """
        for run in self.newest_first():
            for output in reversed(run["outputs"]):
                if output.get("kind") in kinds:
                    path = self.folder / output["path"]
                    if os.path.exists(path) and (fits is None or fits(path)):
                        return {**output, "path": str(path)}
        return None

    def made(self, path: Path, key: str) -> bool:
        """Whether `path` exists and its newest run in the journal has this key."""
        return self.made_as(path, key) is not None

    def made_as(self, path: Path, key: str) -> dict[str, Any] | None:
        """The journal's entry of `path` by the newest run that made it, if `path` exists and that run has this key."""
        relative = self.relative(path)
        for run in self.newest_first():
            for output in reversed(run["outputs"]):
                if output["path"] == relative:
                    return output if path.exists() and run.get("key") == key else None
        return None

    def relative(self, path: Path | str) -> str:
        """A path as the journal writes it: relative to the folder if it is inside."""
        try:
            # Unlike `Path.resolve`, `realpath` accepts a link that points to itself.
            return str(Path(os.path.realpath(path)).relative_to(os.path.realpath(self.folder)))
        except ValueError:
            return str(path)

    def append(self, run: Run, seconds: float) -> str:
        """Adds a finished run.

        Returns:
            why that failed where the disk is at fault; empty otherwise, also for a folder that may not be written to.
        """
        entry = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "command": run.command,
            "argv": run.argv,
            "version": run.version,
            "seconds": round(seconds, 3),
            "seed": run.seed,
            "key": run.key,
            "inputs": [{**i, "path": self.relative(i["path"])} for i in run.inputs],
            "outputs": [{**o, "path": self.relative(o["path"])} for o in run.outputs],
        }
        line = (dump_json(entry) + "\n").encode()
        try:
            self.path.parent.mkdir(exist_ok=True)
            append_lines(self.path, line)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG):
                return os.strerror(error.errno).lower()
        return ""


def _pass_over(stream: IO[bytes]) -> None:
    """Read to the end of a line that is too long."""
    while (piece := stream.readline(MAX_LINE)) and not piece.endswith(b"\n"):
        pass


def _backwards(stream: IO[bytes]) -> Iterator[bytes]:
    """The lines of a file, last line first; lines longer than `MAX_LINE` are left out."""
    position = stream.seek(0, os.SEEK_END)
    tail: bytes | None = b""  # the end of a line, read so far; None while a line is too long
    while position:
        size = min(_BLOCK, position)
        position -= size
        stream.seek(position)
        parts = stream.read(size).split(b"\n")
        if tail is not None:
            parts[-1] += tail
        elif len(parts) > 1:
            parts.pop()
        else:
            continue
        yield from reversed(parts[1:])
        tail = parts[0] if len(parts[0]) <= MAX_LINE else None
    if tail:
        yield tail


def _entry(line: bytes) -> dict[str, Any] | None:
    """The run that a line describes; None if it is not an entry."""
    try:
        entry = parse_json(line.decode(errors="surrogateescape"))
        if not isinstance(entry, dict):
            return None
        check_fields(JOURNAL, entry, ("outputs",))
        entry = {**entry, "inputs": entry.get("inputs") or []}
        for file in (*entry["inputs"], *entry["outputs"]):
            check_fields(JOURNAL_FILE, file, ("path",))
        for side in ("inputs", "outputs"):
            entry[side] = [with_paths(JOURNAL_FILE, file) for file in entry[side]]
    except ValueError:
        return None
    return entry
