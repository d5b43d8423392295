"""Images a second of the vision-language judge: in batches against one by one, and with the text before the image shared."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from sanactl.errors import UsageError
from sanactl.files.progress import SILENT, Progress
from sanactl.judging.registry import open_judge

__all__ = ["measure_judging"]


def measure_judging(
    model: str,
    *,
    batch_size: int = 16,
    images: int = 64,
    rounds: int = 5,
    options: dict[str, Any] | None = None,
    progress: Progress = SILENT,
) -> list[dict[str, Any]]:
    """Rows with `way`, `images_per_second` (the median round), `value` and `prefix_tokens`.

    The ways take turns in each round, so that other work on the machine is shared by them. `value` is the median over the
    rounds of a way's images a second divided by those of the first way, in the same round. The first round is not counted.

    Args:
        model: the judge, see `sanactl.judging.registry.open_judge`.
        batch_size: images of a batch.
        images: pictures of the built-in world in a round.
        rounds: rounds that count.
        options: the judge's.

    Raises:
        UsageError: the judge is no model that runs here.
    """
    from sanactl.judging.backends.vlm import VlmJudge
    from sanactl.shapes.dataset import batch

    judge = open_judge(model, **(options or {}))
    if not isinstance(judge, VlmJudge):
        raise UsageError(
            f"{model} is no vision-language model that runs here", hint="give a folder or a Hub id"
        )
    pictures, records = batch(range(images))
    prompts = [record["prompt"] for record in records]
    prefix = judge._prefix

    def way(size: int, shared: bool) -> Callable[[], None]:
        def run() -> None:
            judge._prefix = prefix if shared else None
            for first in range(0, images, size):
                judge.score(list(pictures[first : first + size]), prompts[first : first + size])

        return run

    ways = {"one by one": way(1, False), f"batches of {batch_size}": way(batch_size, False)}
    if prefix is not None:
        ways["one by one, text before the image shared"] = way(1, True)
        ways[f"batches of {batch_size}, text before the image shared"] = way(batch_size, True)
    progress.start(rounds + 1, f"judging {images} images with {judge.name}")
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, run in ways.items():
            start = time.perf_counter()
            run()
            if number:
                times[name].append(time.perf_counter() - start)
        progress.advance(1)
    judge._prefix = prefix
    first = times["one by one"]
    return [
        {
            "way": name,
            "images_per_second": images / statistics.median(spent),
            "value": _ratio(first, spent),
            "prefix_tokens": 0 if prefix is None else len(prefix.ids),
            "judge": judge.name,
        }
        for name, spent in times.items()
    ]


def _ratio(first: Sequence[float], spent: Sequence[float]) -> float:
    return statistics.median(a / b for a, b in zip(first, spent, strict=True))
