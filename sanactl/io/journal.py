"""The folder's memory: `.sanactl/journal.jsonl`, one line a run.

Several commands of a pipe write to it at once, so each line is one append under a lock. A line is

    {"time", "command", "argv", "version", "seconds", "seed", "key",
     "inputs": [{"path", "digest"}], "outputs": [{"path", "kind", "digest", ...}]}

with paths relative to the folder. `key` says what an output is a function of: the same key, the same output.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Journal", "Run", "run_key"]


def run_key(command: str, **settings: Any) -> str:
    """A digest of everything that a run's output depends on."""
    text = json.dumps({"command": command, **settings}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass
class Run:
    """One run of a command, as it will stand in the journal."""

    command: str
    argv: list[str]
    version: str
    seed: int | None = None
    key: str | None = None
    inputs: list[dict[str, Any]] = field(default_factory=list)
    outputs: list[dict[str, Any]] = field(default_factory=list)


class Journal:
    """The journal of a folder, by default the current one.

    Nothing here raises on a journal that is damaged or cannot be written: it is a memory, not a condition.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or Path.cwd()
        self.path = self.folder / ".sanactl" / "journal.jsonl"

    def runs(self) -> Iterator[dict[str, Any]]:
        """All runs, oldest first; lines that cannot be read are passed over."""
        with contextlib.suppress(OSError), self.path.open(encoding="utf-8", errors="replace") as stream:
            for line in stream:
                with contextlib.suppress(ValueError):
                    entry = json.loads(line)
                    if isinstance(entry, dict) and isinstance(entry.get("outputs"), list):
                        yield entry

    def newest(self, *kinds: str) -> dict[str, Any] | None:
        """The newest output of one of `kinds` that is still there: {"path" (absolute), "kind", "digest", ...}."""
        for run in reversed(list(self.runs())):
            for output in reversed(run["outputs"]):
                if (
                    isinstance(output, dict)
                    and output.get("kind") in kinds
                    and isinstance(output.get("path"), str)
                ):
                    path = self.folder / output["path"]
                    if path.exists():
                        return {**output, "path": str(path)}
        return None

    def made(self, path: Path, key: str) -> bool:
        """Whether `path` is there and its newest run in the journal has this key."""
        relative = self.relative(path)
        for run in reversed(list(self.runs())):
            if any(isinstance(o, dict) and o.get("path") == relative for o in run["outputs"]):
                return path.exists() and run.get("key") == key
        return False

    def relative(self, path: Path | str) -> str:
        """A path as the journal writes it: relative to the folder where it lies inside."""
        try:
            return str(Path(path).resolve().relative_to(self.folder.resolve()))
        except ValueError:
            return str(path)

    def append(self, run: Run, seconds: float) -> None:
        """Adds a finished run."""
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
        line = (json.dumps(entry, ensure_ascii=False) + "\n").encode()
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(exist_ok=True)
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                # One write of an O_APPEND file does not interleave with another process's.
                os.write(descriptor, line)
            finally:
                os.close(descriptor)
