"""Where the time of `finetune`'s steps goes, measured around the functions that a step consists of."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["PARTS", "PartTimes"]

PARTS = ("data", "forward", "backward", "clip", "optimizer", "rest")


class PartTimes:
    """Adds up the seconds of each part of the steps.

    Parts of a batch may be computed side by side on several threads; then forward and backward share the time in which
    any thread computes, by their threads' seconds.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.clear()

    def clear(self) -> None:
        """Begins anew."""
        self._found = dict.fromkeys(
            ("draw", "data", "forward", "backward", "gradient", "clip", "optimizer"), 0.0
        )
        self._started = time.perf_counter()

    @property
    def seconds(self) -> dict[str, float]:
        """By the names of `PARTS`."""
        found, whole = self._found, time.perf_counter() - self._started
        computing = found["gradient"] - found["data"] - found["draw"]
        both = found["forward"] + found["backward"]
        share = found["forward"] / both if both else 0.0
        made = {
            "data": found["data"] + found["draw"],
            "forward": computing * share,
            "backward": computing * (1 - share),
            "clip": found["clip"],
            "optimizer": found["optimizer"],
        }
        return {**made, "rest": whole - sum(made.values())}

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Measures the functions while the body runs."""
        import torch

        from sanactl.training import loop
        from sanactl.training.gradient import BatchGradient
        from sanactl.training.loop import TrainingLoop
        from sanactl.training.summed import SummedGradient

        places: list[tuple[Any, str, str]] = [
            (BatchGradient, "draw", "draw"),
            (BatchGradient, "read", "data"),
            (BatchGradient, "errors", "forward"),
            (torch.autograd, "grad", "backward"),
            (torch.Tensor, "backward", "backward"),
            (SummedGradient, "leave", "gradient"),
            (BatchGradient, "prepare", "gradient"),
            (loop, "clip_gradients", "clip"),
            (TrainingLoop, "_update", "optimizer"),
        ]
        before = [(owner, name, getattr(owner, name)) for owner, name, _ in places]
        for owner, name, part in places:
            setattr(owner, name, self._timed(getattr(owner, name), part))
        try:
            yield
        finally:
            for owner, name, function in before:
                setattr(owner, name, function)

    def _timed(self, function: Callable[..., Any], part: str) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                gone = time.perf_counter() - started
                with self._lock:
                    self._found[part] += gone

        return timed
