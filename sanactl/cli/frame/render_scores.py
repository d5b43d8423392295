"""Scores for people: whatever the metric, its value with its interval, and what it was measured on."""

from __future__ import annotations

from typing import Any

from rich.text import Text

from sanactl.cli.frame.console import PlainConsole, data, show_rows
from sanactl.records.records import Record

__all__ = ["show_scores"]

# The fields that hold a score's value, the first that is there.
_VALUES = ("overall", "score", "value", "single", "loss")
# What is shown elsewhere, or is of no use to a person who looks at a table.
_OTHER = {"kind", "metric", "checkpoint", "digest", "ci", "single_ci", "tasks", "points", *_VALUES}
_MOST_FACTS = 8
_MOST_ROWS = 40


def show_scores(records: list[Record]) -> None:
    """Every score record: those with tasks or points as a table each, the others as one; images are passed over."""
    scores = [r for r in records if r["kind"] == "score"]
    console = PlainConsole()
    plain = [r for r in scores if not r.get("tasks") and not r.get("points")]
    for record in scores:
        if record.get("points"):
            _show_points(console, record)
        if record.get("tasks"):
            _show_tasks(console, record)
    if plain:
        rows = [
            (data(r["metric"]), Text(_number(_value(r)), "bold"), _interval(r.get("ci")), data(_facts(r)))
            for r in plain
        ]
        show_rows(console, ("metric", "value", "95 % interval", "of"), rows)


def _show_tasks(console: PlainConsole, record: Record) -> None:
    rows: list[tuple[Text | str, ...]] = []
    for name, task in list(record["tasks"].items())[:_MOST_ROWS]:
        images = task.get("images")
        rows.append(
            (data(name), _number(task.get("score")), _interval(task.get("ci")), _number(images, whole=True))
        )
    value = Text(_number(_value(record)), "bold")
    rows.append((Text("overall", "bold"), value, _interval(record.get("ci")), ""))
    show_rows(console, ("task", "score", "95 % interval", "images"), rows, title=_title(record))


def _show_points(console: PlainConsole, record: Record) -> None:
    rows = [
        (
            _number(point.get("n"), whole=True),
            *(
                f"{_number(point.get(who))}  {_interval(point.get(f'{who}_ci'))}".rstrip()
                for who in ("judge", "oracle")
            ),
        )
        for point in record["points"][:_MOST_ROWS]
    ]
    show_rows(console, ("best of", "judge", "oracle"), rows, title=_title(record))


def _title(record: Record) -> Text:
    images = _number(record.get("images"), whole=True) or "?"
    return data(f"{record['metric']} of {record.get('checkpoint') or 'these images'}, {images} images")


def _value(record: Record) -> Any:
    return next((record[name] for name in _VALUES if record.get(name) is not None), None)


def _number(value: object, *, whole: bool = False) -> str:
    """A number as people read it; nothing where there is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    if whole:
        return f"{value:,}" if isinstance(value, int) and abs(value) < 10**15 else f"{value:.3g}"
    return f"{value:.3f}" if 1e-3 <= abs(value) < 1e6 or value == 0 else f"{value:.4g}"


def _interval(value: object) -> str:
    if not isinstance(value, list) or len(value) != 2:
        return ""
    low, high = (_number(v) for v in value)
    return f"{low} - {high}" if low and high else ""


def _facts(record: Record) -> str:
    """What else a score says, in short."""
    facts = [str(record["checkpoint"])] if record.get("checkpoint") else []
    for name, value in record.items():
        if name not in _OTHER and isinstance(value, str | int | float) and value != "":
            shown = value if isinstance(value, str | bool) else _number(value, whole=isinstance(value, int))
            facts.append(f"{name.replace('_', ' ')} {shown}")
    return ", ".join(facts[:_MOST_FACTS])
