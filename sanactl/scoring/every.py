"""`eval all`: the metrics of the paper's table 1, as far as what they need is at hand."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sanactl.errors import InputError, SanactlError
from sanactl.files.progress import SILENT, Progress
from sanactl.records.partial import Partial
from sanactl.records.records import Record
from sanactl.scoring.metrics.registry import open_metric
from sanactl.scoring.rewritten import telling_rewrites

__all__ = ["TABLE", "Wanted", "evaluate_all"]

# The metrics of the table, in the order in which they are run; the names of their scores begin with these.
TABLE = ("geneval", "clip", "fid", "dpg")
# What huggingface_hub says of a model that would have to be downloaded.
_NOT_THERE = re.compile(r" cannot be used: (Cannot find|\S+ is not a|.*outgoing traffic).*", re.DOTALL)


@dataclass(frozen=True)
class Wanted:
    """What to run.

    Attributes:
        options: of each metric of `TABLE`, by its name.
        kept: gives the kept results of a metric, by its name and identity.
    """

    options: Mapping[str, Mapping[str, Any]]
    kept: Callable[[str, Mapping[str, Any]], Partial]


def evaluate_all(
    records: Sequence[Record], wanted: Wanted, *, progress: Progress = SILENT
) -> Iterator[Record]:
    """Scores images by every metric that can be run; a line says of each other one why it cannot.

    GenEval takes the images whose records have `include`, DPG-Bench those with `item_id`, CLIP score and FID the others, or
    all if there are no others. A metric whose score is among the records is not run again. Nothing is downloaded.

    Args:
        records: image and score records.

    Yields:
        the image records with the fields of all metrics, the new scores, and the scores that came in.

    Raises:
        InputError: there are no records, or no metric could be run and no score came in; an image that a metric has begun
            with cannot be read.
    """
    came = [record for record in records if record["kind"] == "image"]
    images = [dict(record) for record in came]
    given = [record for record in records if record["kind"] == "score"]
    if not images and not given:
        raise InputError("no image or score records came in", hint="sanactl sample makes some")
    scores: list[Record] = []
    for name in TABLE if images else ():
        chosen = _images_of(name, images)
        there = {str(score["metric"]) for score in given if score.get("value") is not None}
        if name in there or f"{name}_official" in there:
            progress.note(f"{name}: its score came in")
        elif not chosen:
            progress.note(f"left out {name}: no image is of its prompts")
        else:
            scores += _run(name, [(came[place], images[place]) for place in chosen], wanted, progress)
    if not scores and not given:
        raise InputError("no metric could be run", hint="the lines above say what each needs")
    yield from images
    yield from scores
    yield from given


def _images_of(name: str, images: Sequence[Record]) -> list[int]:
    """The places of the images that a metric takes."""
    fields = {"geneval": "include", "dpg": "item_id"}
    if name in fields:
        return [place for place, record in enumerate(images) if fields[name] in record]
    others = [p for p, record in enumerate(images) if not any(f in record for f in fields.values())]
    return others or [*range(len(images))]


def _run(
    name: str, images: Sequence[tuple[Record, Record]], wanted: Wanted, progress: Progress
) -> list[Record]:
    """A metric's scores; empty, with a line, where it cannot be run.

    Args:
        images: each record as it came in, of which kept results are found again, and the one that gets the fields.
    """
    from sanactl.model.guard import offline

    scores: list[Record] = []
    found: list[Record] = []
    try:
        with offline(Path()):
            metric = open_metric(name, **wanted.options.get(name, {}))
            kept = wanted.kept(name, metric.identity)
            evaluate = partial(metric.evaluate, kept=kept, progress=progress)
            for record in telling_rewrites(evaluate, (r for r, _ in images)):
                if record["kind"] == "score":
                    scores.append(record)
                else:
                    found.append(record)
    except SanactlError as error:
        if found:
            raise
        progress.note(f"left out {name}: {_NOT_THERE.sub(' is not on this machine', str(error))}")
        return []
    for (_, record), with_fields in zip(images, found, strict=True):
        record.update(with_fields)
    return scores
