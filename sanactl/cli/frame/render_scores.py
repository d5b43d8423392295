"""Showing score records of any metric on a terminal: values, intervals, and what was measured."""

from __future__ import annotations

from typing import Any

from rich.text import Text

from sanactl.cli.frame.console import PlainConsole, data, show_rows
from sanactl.records.records import Record
from sanactl.records.scores import normal_score
from sanactl.report.labels import detector_words, prompts_words, said_of_selection

__all__ = ["show_scores"]

# Fields that are shown elsewhere or are of no use in a table.
_OTHER = {"kind", "metric", "value", "unit", "ci", "tasks", "axis", "curves", "checkpoint", "digest"}
_OTHER |= {"detector", "detector_digest", "model_digest"}
_MOST_FACTS = 8
_MOST_ROWS = 40
_MOST_TASKS = 8
_LONGEST_NAME = 20


def show_scores(records: list[Record]) -> None:
    """Every score record: those with tasks or curves as a table each, the others as one table; image records are skipped."""
    scores = [normal_score(r) for r in records if r["kind"] == "score"]
    console = PlainConsole()
    together = _alike(scores)
    for group in together:
        _show_together(console, group)
    scores = [r for r in scores if not any(r is shown for group in together for shown in group)]
    for record in scores:
        if record.get("curves"):
            _show_curves(console, record)
        if record.get("tasks"):
            _show_tasks(console, record)
    plain = [r for r in scores if not r.get("tasks") and not r.get("curves")]
    if plain:
        rows = [
            (data(r["metric"]), Text(_value(r), "bold"), _interval(r.get("ci")), data(_facts(r)))
            for r in plain
        ]
        show_rows(console, ("metric", "value", "95 % interval", "of"), rows)


def _alike(scores: list[Record]) -> list[list[Record]]:
    """Scores of one judge with the same tasks, where there are several: a row each of one table is enough."""
    groups: dict[str, list[Record]] = {}
    for record in scores:
        if record.get("judge") and str(record["metric"]).startswith("judge_") and not record.get("curves"):
            groups.setdefault(repr([record["judge"], record.get("truth"), record.get("prompts")]), []).append(
                record
            )
    return [group for group in groups.values() if len(group) > 1]


def _show_together(console: PlainConsole, records: list[Record]) -> None:
    """A row for each score, a column for each task."""
    tasks = list(dict.fromkeys(name for r in records for name in r.get("tasks") or {}))[:_MOST_TASKS]
    rows: list[tuple[Text | str, ...]] = []
    for record in records[:_MOST_ROWS]:
        of = record.get("tasks") or {}
        name = str(record["metric"]).removeprefix("judge_").replace("_", " ")
        if record.get("difference"):
            name += f" ({record['difference']})"
        cells = [_number((of.get(task) or {}).get("value")) for task in tasks]
        rows.append((data(name), Text(_value(record), "bold"), _interval(record.get("ci")), *cells))
    headings = ("figure", "all", "95 % interval", *(data(task).plain for task in tasks))
    counts = ", ".join(f"{_number(records[0].get(n), whole=True)} {n}" for n in ("images", "prompts"))
    show_rows(console, headings, rows, title=data(f"judge {records[0]['judge']}, {counts}"))


def _show_tasks(console: PlainConsole, record: Record) -> None:
    rows: list[tuple[Text | str, ...]] = []
    for name, task in list(record["tasks"].items())[:_MOST_ROWS]:
        images = task.get("images")
        rows.append(
            (data(name), _number(task.get("value")), _interval(task.get("ci")), _number(images, whole=True))
        )
    rows.append((Text("overall", "bold"), Text(_value(record), "bold"), _interval(record.get("ci")), ""))
    show_rows(console, ("task", "score", "95 % interval", "images"), rows, title=_title(record))


def _show_curves(console: PlainConsole, record: Record) -> None:
    """A row for each place on the axis, a column for each curve."""
    curves = {n: c for n, c in record["curves"].items() if isinstance(c, list)}
    places = sorted({p["at"] for curve in curves.values() for p in curve if _number(p.get("at"))})
    rows = []
    for place in places[:_MOST_ROWS]:
        points: list[Record] = [
            next((p for p in curve if p.get("at") == place), {}) for curve in curves.values()
        ]
        cells = [f"{_number(p.get('value'))}  {_interval(p.get('ci'))}".rstrip() for p in points]
        rows.append((_number(place, whole=True), *cells))
    headings = (data(record.get("axis") or "at").plain, *(data(name).plain for name in curves))
    show_rows(console, headings, rows, title=_title(record))


def _title(record: Record) -> Text:
    count = record.get("images")
    images = f"{_number(count, whole=True) or '?'} image{'' if count == 1 else 's'}"
    of = f"{record['metric']} of {record.get('checkpoint') or 'these images'}"
    prompts = prompts_words(record) if record.get("benchmark") else ""
    detector = f"detector {detector_words(record)}" if record.get("detector") else ""
    return data(", ".join(filter(None, (of, said_of_selection(record), detector, prompts, images))))


def _value(record: Record) -> str:
    shown = _number(record.get("value"))
    unit = record.get("unit")
    return f"{shown} {data(unit).plain}" if shown and isinstance(unit, str) else shown


def _number(value: Any, *, whole: bool = False) -> str:
    """A number for a table; empty if there is none."""
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
    """The other fields of a score, in short."""
    facts = [str(record["checkpoint"])] if record.get("checkpoint") else []
    facts += [f"detector {detector_words(record)}"] if record.get("detector") else []
    for name, value in record.items():
        # A protocol is a name ("pytorch-fid") or a sentence.
        if name == "protocol" and len(str(value)) > _LONGEST_NAME:
            continue
        if name not in _OTHER and isinstance(value, str | int | float) and value != "":
            shown = value if isinstance(value, str | bool) else _number(value, whole=isinstance(value, int))
            facts.append(f"{name.replace('_', ' ')} {shown}")
    return ", ".join(facts[:_MOST_FACTS])
