"""Trackers: the figures of every step go to tensorboard, wandb or trackio, through accelerate's classes for these."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sanactl.errors import UsageError
from sanactl.training.figures import figures_path

__all__ = ["TRACKERS", "check_tracker", "open_tracker", "tracker_path", "watching"]

TRACKERS = ("tensorboard", "wandb", "trackio")


def check_tracker(name: str) -> None:
    """Raises UsageError for an unknown tracker, or one whose package is not installed."""
    from accelerate.tracking import get_available_trackers

    if name not in TRACKERS:
        raise UsageError(f"--tracker {name}: choose one of {', '.join(TRACKERS)}")
    if name not in [str(getattr(known, "value", known)) for known in get_available_trackers()]:
        raise UsageError(f"--tracker {name}: the package is not installed", hint=f"pip install {name}")


def tracker_path(name: str, target: Path) -> Path | None:
    """The folder beside the target that a tracker writes to; None for those that write elsewhere."""
    return target.with_name(f"{_stem(target)}.tensorboard") if name == "tensorboard" else None


def _stem(target: Path) -> str:
    return figures_path(target).name.removesuffix(".train.jsonl")


def open_tracker(name: str, target: Path, settings: dict[str, Any], *, key: str, first: int) -> Any:
    """An accelerate `GeneralTracker` that has started: `log(values, step=...)` and `finish()`.

    Only the first process calls this.

    Args:
        target: the run is called by its stem; tensorboard's files go to STEM.tensorboard beside it.
        settings: what to show beside the curves.
        key: of the run: a resumed run is one run in the tracker, on one axis of steps.
        first: steps that are done already; later ones that a killed run has logged are overwritten.
    """
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    stem = _stem(target)
    known: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
        "tensorboard": ((f"{stem}.tensorboard", str(target.parent)), {"purge_step": first + 1}),
        "wandb": (("sanactl",), {"name": stem, "id": key[:16], "resume": "allow"}),
        "trackio": (("sanactl",), {"name": f"{stem}-{key[:8]}", "resume": "allow"}),
    }
    arguments, options = known[name]
    tracker = LOGGER_TYPE_TO_CLASS[name](*arguments, **options)
    tracker.start()
    if name != "tensorboard":  # it would make a run of its own for them
        tracker.store_init_configuration(settings)
    return tracker


@contextlib.contextmanager
def watching(
    name: str | None,
    on_step: Callable[[dict[str, Any]], None] | None,
    target: Path,
    key: str,
    first: int,
) -> Iterator[Callable[[dict[str, Any]], None] | None]:
    """`on_step`, extended so that the steps after `first` also go to the tracker called `name`; None: no tracker."""
    if name is None:
        yield on_step
        return
    opened = open_tracker(name, target, {"first_step": first}, key=key, first=first)

    def log(point: dict[str, Any]) -> None:
        if point["step"] > first:
            opened.log({key: value for key, value in point.items() if key != "step"}, step=point["step"])
        if on_step is not None:
            on_step(point)

    try:
        yield log
    finally:
        opened.finish()
