"""The line at the end of a command: its output, the amount, and a useful next command."""

from __future__ import annotations

import os
import re
import shlex
import stat
from collections.abc import Mapping
from pathlib import Path

from sanactl.files.human import human_bytes

__all__ = ["wrote_line"]

# Command to the next step; {} is the output. Some read the newest records of the folder and need no name.
_NEXT = {
    "init": "sanactl sample {}",
    "grow": "sanactl finetune {} --data FOLDER",
    "prune": "sanactl finetune {} --data FOLDER --steps 100",
    "finetune": "sanactl sample {}",
    "convert": "sanactl inspect {}",
    "encode": "sanactl finetune --data {}",
    "judge": "sanactl eval geneval {}",
    "scale": "sanactl eval geneval {}",
    "filter": "sanactl finetune --data {}",
    "train-judge": "sanactl judge --model {}",
    "eval": "sanactl report",
}
_PART = re.compile(r"(?P<stem>.+)\.[0-9]+-of-(?P<of>[0-9]+)\.jsonl")
_WHAT = {"block": "blocks", "image": "images", "score": "scores", "prompt": "prompts"}


def wrote_line(
    command: str, path: Path, kind: str, counts: Mapping[str, int], *, scorable: bool = True
) -> str:
    """One line about an output.

    Args:
        command: the command that wrote it.
        path: a file or a folder.
        kind: of the output, as the journal names it.
        counts: number of written records by kind.
        scorable: whether GenEval's rules can score the images.
    """
    parts = [
        f"{counts[of]:,} {_plural(of, counts[of])}"
        for of in ("block", "image", "score", "prompt")
        if counts.get(of)
    ]
    empty = kind in _WHAT and not any(counts.values())
    if empty:
        parts = [f"0 {_plural(kind, 0)}"]
    elif kind == "shard" and not parts:
        parts = ["no work for this job"]
    counted = kind in _WHAT or kind == "shard"
    amount = ", ".join(parts) if counted and parts else human_bytes(_size(path))
    # The next command would find nothing in an empty file.
    step = None if empty else _step(command, path, counts, scorable)
    return f"wrote {path} ({amount})" + (f" - next: {step}" if step else "")


def _plural(kind: str, count: int) -> str:
    return _WHAT[kind] if count != 1 else kind


def _step(command: str, path: Path, counts: Mapping[str, int], scorable: bool) -> str | None:
    if part := _PART.fullmatch(path.name):
        # sample says what joins its images.
        every = f"{shlex.quote(str(path.with_name(part['stem'])))}.*-of-{part['of']}.jsonl"
        return None if command == "sample" else f"sanactl merge {every}, when all {part['of']} jobs are done"
    if command == "importance":
        half = -(-counts.get("block", 0) // 2)
        return f"sanactl prune --keep {half}" if half else None
    if command in ("judge", "scale") and not scorable:
        return None  # GenEval's rules need its tags
    if command == "sample":
        return f"sanactl judge {shlex.quote(str(path))}"
    form = _NEXT.get("eval" if command.startswith("eval ") else command)
    return form.format(shlex.quote(str(path))) if form else None


def _size(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    try:
        status = path.stat()
        if not stat.S_ISDIR(status.st_mode):
            return status.st_size
        return sum(
            os.lstat(os.path.join(place, name)).st_size for place, _, names in os.walk(path) for name in names
        )
    except OSError:
        return 0
