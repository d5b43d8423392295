"""The time of a training step of `finetune` beside that of a plain diffusers loop, which take turns."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sanactl.bench.training_loops import MODELS, prepare
from sanactl.bench.training_parts import PARTS
from sanactl.errors import SanactlError, UsageError

__all__ = ["PROGRAMS", "measure_train_speed"]

PROGRAMS = ("ours", "theirs")


def measure_train_speed(
    model: str,
    settings: dict[str, Any],
    *,
    steps: int,
    rounds: int,
    tokens: tuple[int, int] = (10, 100),
    tick: Callable[[str], None] = lambda said: None,
) -> dict[str, Any]:
    """Measures both programs on the same model and encoded data, each in a process of its own.

    Args:
        model: of `MODELS`.
        settings: fields of `FinetuneSettings`: batch size, precision and so on. Both use AdamW.
        steps: of each turn.
        rounds: turns of each that are timed; one goes first and is not.
        tokens: the fewest and the most tokens of a caption.
        tick: told of each turn.

    Returns:
        `ratio`, ours divided by theirs, of the medians; `seconds` and `their_seconds` of a step; `ratios`, the least and
        the largest of a round; `cpu_ratio`, the median over rounds of the ratio of processor times, or None on a GPU; and
        `parts`, a step's seconds by the parts of `PARTS`.

    Raises:
        UsageError: no such model.
        SanactlError: a program failed.
    """
    if model not in MODELS:
        raise UsageError(f"no model called {model!r}", hint=f"use one of {', '.join(MODELS)}")
    with tempfile.TemporaryDirectory() as name:
        prepare(Path(name), model, tokens)
        programs = [_Program(p, Path(name), {"optimizer": "adamw", **settings}) for p in PROGRAMS]
        try:
            for program in programs:
                program.turn(steps)
            found: list[list[dict[str, Any]]] = [[], []]
            for number in range(rounds):
                for program, answers in zip(programs, found, strict=True):
                    answers.append(program.turn(steps))
                    tick(f"round {number + 1} of {rounds}: {program.name}")
        finally:
            for program in programs:
                program.close()
    ours, theirs = ([answer["seconds"] / steps for answer in answers] for answers in found)
    each = [a / b for a, b in zip(ours, theirs, strict=True)]
    cpu = [a["cpu_seconds"] / b["cpu_seconds"] for a, b in zip(*found, strict=True)]
    parts = {part: statistics.median(answer[part] / steps for answer in found[0]) for part in PARTS}
    return {
        "ratio": statistics.median(ours) / statistics.median(theirs),
        "ratios": [min(each), max(each)],
        "cpu_ratio": statistics.median(cpu) if settings.get("device", "cpu") == "cpu" else None,
        "seconds": statistics.median(ours),
        "their_seconds": statistics.median(theirs),
        "parts": parts,
    }


class _Program:
    """One of the two programs, which waits for its turn."""

    def __init__(self, name: str, folder: Path, settings: dict[str, Any]) -> None:
        self.name = name
        self._said = tempfile.TemporaryFile()
        arguments = json.dumps({"folder": str(folder), "program": name, "settings": settings})
        command: Sequence[str] = [sys.executable, "-m", "sanactl.bench.training_loops", arguments]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, text=True
        )

    def turn(self, steps: int) -> dict[str, Any]:
        """Lets it take so many steps; its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(f"{steps}\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self._process.wait()
            self._said.seek(0)
            last = (self._said.read().decode(errors="replace").strip().splitlines() or ["it said nothing"])[
                -1
            ]
            raise SanactlError(f"the program {self.name!r} failed: {last}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """Ends it."""
        assert self._process.stdin is not None
        self._process.kill()
        self._process.communicate()
        self._said.close()
