"""The fields of records that commands use, with their types and ranges. Other fields pass unchecked.

Records come from files that people and other programs have edited. They are checked once, when they are read. After
that, a known field is of its type, or null, or absent.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sanactl.files.paths import from_json
from sanactl.records.jsonl import NOT_UTF8, dump_json

__all__ = ["FIELDS", "JOURNAL", "JOURNAL_FILE", "REQUIRED", "Field", "check_fields", "with_paths"]

MAX_TEXT = 2**20  # characters
MAX_PATH = 4096


@dataclass(frozen=True)
class Field:
    """A type of field: `what` names it in errors, and `fits` tells whether a value has this type."""

    what: str
    fits: Callable[[Any], bool]


def _is_number(value: Any) -> bool:
    if type(value) is int:
        return abs(value) < 10**300
    return type(value) is float and math.isfinite(value)


def _is_text(value: Any) -> bool:
    return (
        isinstance(value, str) and len(value) <= MAX_TEXT and (value.isascii() or not NOT_UTF8.search(value))
    )


def _is_path(value: Any) -> bool:
    """A path of a file, or a `file:` URI (see `sanactl.files.paths`)."""
    return isinstance(value, str) and 0 < len(value) <= MAX_PATH and not re.search("\0|^file:.*%00", value)


def whole(low: int = 0, high: int = 2**63 - 1) -> Field:
    """A whole number from `low` to `high`."""
    return Field(
        f"a whole number {f'from {low}' if high == 2**63 - 1 else f'from {low} to {high}'}",
        lambda v: type(v) is int and low <= v <= high,
    )


def number(low: float = -math.inf, high: float = math.inf) -> Field:
    """A finite number from `low` to `high`."""
    limits = (f" from {low:g}" if low > -math.inf else "") + (f" to {high:g}" if high < math.inf else "")
    return Field(f"a number{limits}", lambda v: _is_number(v) and low <= v <= high)


def list_of(field: Field, plural: str, *, length: int | None = None) -> Field:
    """A list of `length` members (None: any number) that all fit `field`; errors call them `plural`."""
    return Field(
        f"a list of {f'{length} ' if length else ''}{plural}",
        lambda v: isinstance(v, list) and length in (None, len(v)) and all(map(field.fits, v)),
    )


TEXT = Field("text", _is_text)
PATH = Field(f"a path of 1 to {MAX_PATH:,} characters", _is_path)
NAME = Field("text or a whole number", lambda v: TEXT.fits(v) or (type(v) is int and abs(v) < 2**63))
FLAG = Field("true or false", lambda v: isinstance(v, bool))
OBJECT = Field("an object", lambda v: isinstance(v, dict))
OBJECTS = list_of(OBJECT, "objects")
INTERVAL = list_of(number(), "numbers", length=2)
LOGARITHM = number(-math.inf, 1e-6)


def _is_clause(value: Any) -> bool:
    """Whether it has the types of a GenEval clause; whether a detector knows the class is checked elsewhere."""
    known = {"class": TEXT, "count": whole(1), "color": TEXT, "position": Field("", _is_position)}
    return isinstance(value, dict) and _fault(known, value) is None


def _is_position(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and TEXT.fits(value[0]) and whole().fits(value[1])


def _is_cost(value: Any) -> bool:
    known = {"images": number(0), "flops": number(0), "seconds": number(0)}
    return isinstance(value, dict) and _fault(known, value) is None


COST = Field("an object with images, flops and seconds", _is_cost)


def _has_tasks(value: Any) -> bool:
    # Earlier versions called a task's value `score`.
    known = {"value": number(), "score": number(), "ci": INTERVAL, "images": whole()}
    return isinstance(value, dict) and all(
        isinstance(task, dict) and _fault(known, task) is None for task in value.values()
    )


def _has_curves(value: Any) -> bool:
    known = {
        "at": number(),
        "value": number(),
        "ci": INTERVAL,
        "gain": number(),
        "gain_ci": INTERVAL,
        "success": number(),
        "cost": COST,
    }
    return isinstance(value, dict) and all(
        isinstance(curve, list) and all(isinstance(p, dict) and _fault(known, p) is None for p in curve)
        for curve in value.values()
    )


CLAUSES = list_of(Field("a clause", _is_clause), "objects with class, count, color and position")
_OF_A_PROMPT = {
    "tag": TEXT,
    "include": CLAUSES,
    "exclude": CLAUSES,
    "id": NAME,
    "guard": TEXT,
    "guard_policy": TEXT,
    "guard_probability": number(0, 1),
    "guard_probabilities": OBJECT,
    "guard_flags": list_of(TEXT, "texts"),
    "guard_reason": TEXT,
    "prompt_original": TEXT,
    "prompt_form": TEXT,
    "prompt_style": TEXT,
    "prompt_llm": TEXT,
    "rewrite_error": TEXT,
    "rewrite_answer": TEXT,
}
_MEASURED = {"checkpoint": PATH, "digest": TEXT}

# The required fields of each kind.
REQUIRED = {
    "checkpoint": ("path",),
    "block": ("checkpoint", "digest", "block", "importance"),
    "prompt": ("prompt",),
    "image": ("path", "prompt"),
    "score": ("metric",),
}
FIELDS: dict[str, dict[str, Field]] = {
    "checkpoint": {
        "path": PATH,
        "digest": TEXT,
        "blocks": whole(),
        "parameters": whole(),
        "bytes": whole(),
        "lineage": OBJECTS,
    },
    "block": {
        **_MEASURED,
        "block": whole(0, 99_999),
        "blocks": whole(),
        "importance": number(),
        "stderr": number(),
        "prompts": whole(),
        "timesteps": list_of(number(), "numbers"),
        "by_timestep": list_of(number(), "numbers"),
    },
    "prompt": {**_OF_A_PROMPT, "prompt": TEXT},
    "image": {
        **_OF_A_PROMPT,
        **_MEASURED,
        "path": PATH,
        "prompt": TEXT,
        "prompt_id": NAME,
        "index": whole(),
        "samples": whole(1),
        "seed": whole(0, 2**64 - 1),
        "steps": whole(1),
        "guidance_scale": number(),
        "flops": number(0),
        "draft_path": PATH,
        "draft_score": number(),
        "draft_steps": whole(1),
        "draft_samples": whole(1),
        "draft_flops": number(0),
        "round": whole(1),
        "drawn": whole(1),
        "stopped": TEXT,
        "height": whole(1),
        "width": whole(1),
        "judge_flops": number(0),
        "judge": TEXT,
        "judge_settings": OBJECT,
        "verdict": TEXT,
        "yes_logprob": LOGARITHM,
        "no_logprob": LOGARITHM,
        "answer_mass": number(0, 1),
        "verdicts": OBJECTS,
        "calibrated": number(0, 1),
        "judge_score": number(),
        "rank": whole(),
        "correct": FLAG,
        "reason": TEXT,
        "detector": TEXT,
        "detections": OBJECTS,
    },
    "score": {
        **_MEASURED,
        "metric": TEXT,
        "value": number(),
        "unit": TEXT,
        "ci": INTERVAL,
        "tasks": Field("an object of objects with value, ci and images", _has_tasks),
        "axis": TEXT,
        "curves": Field("an object of lists of objects with at, value and ci", _has_curves),
        "protocol": TEXT,
        "model": TEXT,
        "model_digest": TEXT,
        "detector_digest": TEXT,
        "benchmark": TEXT,
        "prompts_rewritten": TEXT,
        # Fields of earlier versions; see `sanactl.records.scores.normal_score`.
        "overall": number(),
        "score": number(),
        "single": number(),
        "single_ci": INTERVAL,
        "points": OBJECTS,
        "images": whole(),
        "prompts": whole(),
        "prompts_digest": TEXT,
        "steps": whole(1),
        "top": whole(1),
        "budget": number(0),
        "chosen": FLAG,
        "cost": COST,
        "blocks": whole(),
        "n": whole(1),
        "held_out": number(),
        "runner_up": OBJECT,
        "round": whole(1),
        "step": whole(),
        "loss": number(),
        "lr": number(),
        "grad_norm": number(),
        "images_per_second": number(),
        "detector": TEXT,
        "judge": TEXT,
        "selection": TEXT,
    },
}
JOURNAL: dict[str, Field] = {
    "time": TEXT,
    "command": TEXT,
    "argv": list_of(TEXT, "texts"),
    "version": TEXT,
    "seconds": number(),
    "seed": whole(-(2**63)),
    "key": TEXT,
    "inputs": OBJECTS,
    "outputs": OBJECTS,
}
# The fields of a journal entry's inputs and outputs.
JOURNAL_FILE: dict[str, Field] = {
    "path": PATH,
    "digest": TEXT,
    "kind": TEXT,
    "of": TEXT,
    "checkpoint": PATH,
    "judge": TEXT,
}


def check_fields(
    fields: Mapping[str, Field], record: Mapping[str, Any], required: tuple[str, ...] = ()
) -> None:
    """Check the known fields of an object.

    Args:
        fields: the known fields and their types; a field that is null counts as absent.
        record: the object.
        required: the fields that must be present.

    Raises:
        ValueError: a field is missing or of another type; the message names it and can be shown to the user.
    """
    for name in required:
        if record.get(name) is None:
            raise ValueError(f"without {name!r}")
    fault = _fault(fields, record)
    if fault is not None:
        value = dump_json(record[fault])
        shown = value if len(value) <= 60 else value[:57] + "..."
        raise ValueError(f"with a {fault!r} that is not {fields[fault].what}: {shown}")


def with_paths(fields: Mapping[str, Field], record: dict[str, Any]) -> dict[str, Any]:
    """A checked record whose `file:` URIs are decoded to the system's paths (see `sanactl.files.paths`)."""
    for name, value in record.items():
        if fields.get(name) is PATH and value is not None and (path := from_json(value)) != value:
            record = {**record, name: path}
    return record


def _fault(fields: Mapping[str, Field], record: Mapping[str, Any]) -> str | None:
    """The name of the first known field that does not fit."""
    for name, value in record.items():
        if value is not None and name in fields and not fields[name].fits(value):
            return name
    return None
