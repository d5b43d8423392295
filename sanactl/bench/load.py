"""Measuring sanactl's speed on a CPU whose cores are busy with other work, compared with an idle CPU.

Idle and busy phases take turns during one command, so that both are measured under the same conditions.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sanactl.checkpoint.builtin import asset
from sanactl.checkpoint.open import open_checkpoint
from sanactl.errors import UsageError

__all__ = ["TASKS", "Phases", "measure_load"]

# Seconds: a busy process ends by itself after this time, even without its parent; a phase ends after this time.
_LONGEST = 120.0
_BUSY = "import time\nend = time.monotonic() + {seconds}\nwhile time.monotonic() < end: pass\n"
# The least units of work of a phase. The first one began in the phase before, and is not counted.
_UNITS = 3


class _Done(Exception):
    """Every phase is over."""


class Phases:
    """Counts finished units of work, starts and stops the busy processes, and raises `_Done` when all is measured.

    Args:
        busy: number of busy processes in every second phase.
        seconds: the least length of a phase.
        rounds: number of idle phases, and of busy phases.

    Attributes:
        speeds: images a second in the idle phases, and in the busy ones.
    """

    def __init__(self, busy: int, seconds: float, rounds: int) -> None:
        self._busy, self._seconds, self._left = busy, seconds, 2 * rounds
        self._running: list[subprocess.Popen[bytes]] = []
        self._times: list[float] = []
        self._images: list[int] = []
        self.speeds: tuple[list[float], list[float]] = ([], [])

    def __enter__(self) -> Phases:
        return self

    def __exit__(self, *error: object) -> None:
        self._stop()

    def done(self, images: int) -> None:
        """A unit of work with this number of images is done."""
        self._times.append(time.monotonic())
        self._images.append(images)
        gone = self._times[-1] - self._times[0]
        if not (gone >= self._seconds and len(self._times) > _UNITS) and gone < _LONGEST:
            return
        phase = self._left % 2  # 0 idle, 1 busy
        self.speeds[phase].append(sum(self._images[1:]) / gone)
        self._times, self._images = [], []
        self._left -= 1
        if not self._left:
            raise _Done
        self._stop()
        if phase == 0:
            command = [sys.executable, "-S", "-c", _BUSY.format(seconds=2 * _LONGEST)]
            self._running = [subprocess.Popen(command) for _ in range(self._busy)]

    def _stop(self) -> None:
        for process in self._running:
            process.kill()
        for process in self._running:
            process.wait()
        self._running = []


def measure_load(
    tasks: list[str] | None = None, *, busy: int | None = None, seconds: float = 10.0, rounds: int = 3
) -> Iterator[dict[str, Any]]:
    """Measure commands on the built-in world's base, alone and beside busy processes.

    Args:
        tasks: some of `TASKS`; all by default.
        busy: number of busy processes; by default one for each core.
        seconds: the least length of each phase.
        rounds: number of idle phases, and of busy phases, of each task.

    Yields:
        for each task a row: `task`, `cores`, `threads`, `busy`, `load_before` (the system's load average over the last
        minute), `idle` and `loaded` (images a second, the median of the phases) and `ratio` (idle divided by loaded).

    Raises:
        UsageError: no such task.
    """
    names = list(TASKS) if tasks is None else tasks
    unknown = [name for name in names if name not in TASKS]
    if unknown:
        raise UsageError(f"nothing to measure called {unknown[0]!r}", hint=f"use some of {', '.join(TASKS)}")
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    busy = cores if busy is None else busy
    for name in names:
        before = os.getloadavg()[0]
        with Phases(busy, seconds, rounds) as phases:
            try:
                TASKS[name](phases)
            except _Done:
                idle, loaded = (statistics.median(speeds) for speeds in phases.speeds)
        yield {
            "task": name,
            "cores": cores,
            "threads": torch.get_num_threads(),
            "busy": busy,
            "load_before": round(before, 2),
            "idle": round(idle, 2),
            "loaded": round(loaded, 2),
            "ratio": round(loaded / idle, 3),
        }


def _finetune(phases: Phases, batch: int = 8) -> None:
    from sanactl.data import ShapesSource
    from sanactl.training.finetune import FinetuneSettings, finetune

    settings = FinetuneSettings(
        steps=10**6,
        batch_size=batch,
        max_sequence_length=16,
        complex_human_instruction=False,
        cache=8 * batch,
        device="cpu",
    )
    with tempfile.TemporaryDirectory() as folder:
        finetune(
            open_checkpoint(asset("base.st")),
            ShapesSource(0),
            settings,
            target=Path(folder) / "trained.st",
            on_step=lambda point: phases.done(batch),
        )


def _sample(phases: Phases) -> None:
    import torch

    from sanactl.model.conditioning import Sana, sampling_settings

    base = open_checkpoint(asset("base.st"))
    sana = Sana(base, sampling_settings(base, steps=5), device=torch.device("cpu"), dtype=torch.float32)
    prompts, seeds = ["a photo of a red star"] * 32, list(range(32))
    while True:
        for places, _ in sana.draw(prompts, seeds):
            phases.done(len(places))


def _judge(phases: Phases) -> None:
    from sanactl.judging.registry import open_judge
    from sanactl.shapes.dataset import batch

    judge = open_judge(device="cpu")
    images, records = batch(range(16))
    while True:
        judge.judge(list(images), records)
        phases.done(len(images))


def _importance(phases: Phases) -> None:
    import torch

    from sanactl.model.conditioning import sampling_settings
    from sanactl.sampling.importance import block_importance

    base = open_checkpoint(asset("base.st"))
    settings = sampling_settings(base, steps=3)
    prompts = [f"a photo of {count} red stars" for count in ("two", "three", "four", "five")] * 4
    while True:
        list(block_importance(base, prompts, settings, device=torch.device("cpu"), dtype=torch.float32))
        phases.done(len(prompts))


# Each repeats its work and reports it to the phases.
TASKS: Mapping[str, Callable[[Phases], None]] = {
    "finetune": _finetune,
    "sample": _sample,
    "judge": _judge,
    "importance": _importance,
}
