"""What checkpoints and scores are called in a report: names that a reader tells apart, with the reason in words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from sanactl.report.run import MEANS
from sanactl.report.text import counted, plain, short_name
from sanactl.scoring.geneval.coverage import WHOLE_GENEVAL
from sanactl.scoring.geneval.rules import TASKS

__all__ = [
    "by_metric",
    "detector_words",
    "is_selected",
    "metric_name",
    "prompts_words",
    "said_of_selection",
    "score_labels",
    "score_name",
    "selection_words",
]

Record = dict[str, Any]
_WORDS = {
    "detector": "detector {}",
    "model": "model {}",
    "judge": "judge {}",
    "steps": "{} steps",
    "top": "the best {}",
    "round": "rounds of {}",
}


_METRICS = {
    "dpg": "DPG",
    "dpg_official": "DPG by the official rules",
    "soft_tifa_am": "Soft-TIFA AM",
    "soft_tifa_gm": "Soft-TIFA GM",
    "clip": "CLIP",
    "fid": "FID",
    "kid": "KID",
    "fd_dinov2": "FD-DINOv2",
    "cmmd": "CMMD",
    "speed_diffusers": "speed of diffusers",
}


def metric_name(record: Record) -> str:
    """A score's metric as people write it. A score of a part of GenEval's prompts, or of others, is none of GenEval."""
    if record["metric"] == "geneval":
        return "GenEval" if record.get("benchmark") == WHOLE_GENEVAL else "GenEval's rules"
    name = plain(record["metric"], 40)
    return _METRICS.get(name, name)


def by_metric(record: Record) -> str:
    """What a score is measured by, after a noun: "on GenEval", "by GenEval's rules"."""
    name = metric_name(record)
    return f"by {name}" if name.endswith("rules") else f"on {name}"


def score_name(record: Record) -> str:
    """What kind of score it is: "GenEval score", "score by GenEval's rules"."""
    name = metric_name(record)
    return f"score by {name}" if name.endswith("rules") else f"{name} score"


def prompts_words(record: Record) -> str:
    """Which prompts a score is of, or how many; empty where the record does not say."""
    if isinstance(record.get("benchmark"), str):
        return plain(record["benchmark"], 120)
    return counted(record["prompts"], "prompt") if type(record.get("prompts")) is int else ""


def detector_words(record: Record) -> str:
    """A score's detector, with the beginning of its weights' digest; empty for a score without a detector."""
    if not record.get("detector"):
        return ""
    digest = str(record.get("detector_digest") or "").removeprefix("sha256:")[:8]
    return plain(record["detector"], 80) + (f" ({plain(digest)})" if digest else "")


def selection_words(value: object) -> str:
    """A record's `selection` in words: "single" is all images, one by one."""
    text = str(value)
    best = re.fullmatch(r"best-of-(.+?) by (.+)", text)
    if best:
        return f"best of {best[1]} by {best[2]}"
    return "every image" if text == "single" else text


def is_selected(record: Record) -> bool:
    """Whether a score is that of images which a judge chose, and not of all images that the checkpoint drew."""
    return record.get("selection") not in (None, "single")


def said_of_selection(record: Record, *, counts: bool = True) -> str:
    """What stands beside a score of selected images: the judge's best of 2, 3 prompts. Empty for any other score.

    Args:
        counts: name the number of prompts, and the number of tasks where it is not all of GenEval's.
    """
    if not is_selected(record):
        return ""
    # The judge's name is in the tables.
    best = re.fullmatch(r"best-of-(.+?)( by .+)?|(best \d+ of .+?)( by .+)?", str(record["selection"]))
    what = plain(record["selection"] if best is None else best[3] or f"best of {best[1]}")
    said = [f"the judge's {what}" if best else f"selected: {what}"]
    prompts, tasks = record.get("prompts"), record.get("tasks")
    if counts and type(prompts) is int:
        said.append(counted(prompts, "prompt"))
    if counts and isinstance(tasks, dict) and 0 < len(tasks) < len(TASKS) and set(tasks) < set(TASKS):
        said.append(f"{len(tasks)} of {len(TASKS)} tasks")
    return ", ".join(said)


def score_labels(records: Sequence[Record]) -> list[str]:
    """A label for each score: its checkpoint, and on a second line, what sets it apart from others of that checkpoint.

    Scores of one checkpoint may differ in what was selected of its images, in the number of prompts, in the detector,
    or in the file itself, when another one of that name was there before.
    """
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(str(record.get("checkpoint")), []).append(record)
    return ["\n".join(_label(r, groups[str(r.get("checkpoint"))], records)) for r in records]


def _label(record: Record, mine: Sequence[Record], everyone: Sequence[Record]) -> list[str]:
    """The lines of a label. `mine` are the scores of the same checkpoint."""
    fields = [
        f
        for f in MEANS
        if len({_value(r, f) for r in mine}) > 1
        or len({_value(r, f) for r in everyone}) > 1
        or (f == "selection" and is_selected(record))
    ]
    said = []
    for name in fields:
        if record.get(name) is not None:
            text = selection_words(record[name]) if name == "selection" else _value(record, name)
            said.append(_WORDS.get(name, "{}").format(text))
    for name in ("images", "prompts"):
        if len({str(r.get(name)) for r in mine}) > 1 and record.get(name) is not None:
            said.append(f"{record[name]} {name}")
            break
    digests = list(dict.fromkeys(str(r.get("digest")) for r in mine))
    if len(digests) > 1:
        place = digests.index(str(record.get("digest")))
        newest = place == len(digests) - 1
        said.append("the file as it is now" if newest else f"an earlier file of this name ({place + 1})")
    alike = [r for r in mine if _same(r, record)]
    if len(alike) > 1:
        place = next(i for i, r in enumerate(alike) if r is record)
        said.append(f"measurement {place + 1} of {len(alike)}, other rules")
    return [short_name(record.get("checkpoint")), *([", ".join(said)] if said else [])]


def _value(record: Record, field: str) -> str:
    return detector_words(record) if field == "detector" else str(record.get(field))


def _same(one: Record, other: Record) -> bool:
    """Whether nothing that a label says sets two scores of a checkpoint apart."""
    return all(_value(one, f) == _value(other, f) for f in (*MEANS, "images", "prompts", "digest"))
