"""Score records: one shape for all metrics, and the conversion of earlier versions' records.

    {"kind": "score", "metric", "value", "ci", "tasks": {NAME: {"value", "ci", "images"}},
     "axis", "curves": {NAME: [{"at", "value", "ci"}, ...]}, "unit", "protocol", "detector" or "model", "images", ...}

`docs/formats.md` describes the fields. All but `metric` may be absent or null.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sanactl.records.records import Record

__all__ = ["new_score", "normal_score", "same_checkpoint", "same_field"]

# Earlier versions' names of the value's field, with the name of its interval's field.
_OLD_VALUES = ("overall", "single", "score")
_OLD_INTERVAL = "single_ci"


def new_score(metric: str, value: float | None, **fields: Any) -> Record:
    """A score record.

    Args:
        metric: its name.
        value: the score; None where it could not be measured.
        fields: the other fields, in order; see the top of this module.
    """
    return {"kind": "score", "metric": metric, "value": value, **fields}


def same_checkpoint(records: Sequence[Mapping[str, Any]]) -> Record:
    """{"checkpoint": ..., "digest": ...} as far as all image records name the same ones."""
    return {**same_field(records, "checkpoint"), **same_field(records, "digest")}


def same_field(records: Sequence[Mapping[str, Any]], field: str) -> Record:
    """{field: value} where all image records have the same value; else {}."""
    values = {str(record.get(field)) for record in records}
    same = len(values) == 1 and records[0].get(field) is not None
    return {field: records[0][field]} if same else {}


def normal_score(record: Mapping[str, Any]) -> Record:
    """Convert a score record of any version to the present shape; unknown fields are unchanged.

    Earlier versions had the value in `overall` or `single`, a task's value in `score`, and a curve's points in `points` as
    {"n", "judge", "judge_ci", "oracle", "oracle_ci"}.
    """
    found = dict(record)
    if found.get("value") is None:
        for name in _OLD_VALUES:
            if found.get(name) is not None:
                found["value"] = found.pop(name)
                break
    if found.get("ci") is None and found.get(_OLD_INTERVAL) is not None:
        found["ci"] = found.pop(_OLD_INTERVAL)
    tasks = found.get("tasks")
    if isinstance(tasks, dict):
        found["tasks"] = {name: _task(task) for name, task in tasks.items() if isinstance(task, dict)}
    points = found.get("points")
    if isinstance(points, list) and "curves" not in found:
        found["curves"] = _curves([p for p in points if isinstance(p, dict)])
        found.setdefault("axis", "images per prompt")
        del found["points"]
    return found


def _task(task: Mapping[str, Any]) -> Record:
    if task.get("value") is None and "score" in task:
        return {**{k: v for k, v in task.items() if k != "score"}, "value": task["score"]}
    return dict(task)


def _curves(points: list[Record]) -> dict[str, list[Record]]:
    names = [n for n in dict.fromkeys(n for p in points for n in p) if n != "n" and not n.endswith("_ci")]
    curves = {
        name: [
            {"at": p.get("n"), "value": p[name], "ci": p.get(f"{name}_ci")}
            for p in points
            if p.get(name) is not None
        ]
        for name in names
    }
    return {name: curve for name, curve in curves.items() if curve}
