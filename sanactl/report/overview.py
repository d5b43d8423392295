"""The first screen's plot and table: each checkpoint's score beside its parameters, size and speed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from sanactl.files.human import human_bytes
from sanactl.report.blocks import Block, Cell, Note, Table, measured
from sanactl.report.checkpoints import Facts
from sanactl.report.drawn import draw
from sanactl.report.labels import said_of_selection, score_name
from sanactl.report.plots import Bar, sizes_figure
from sanactl.report.run import RunRecords, newest
from sanactl.report.text import compact, counted, finite, interval_of, number, plain, short_name

__all__ = ["overview", "speeds"]

Record = dict[str, Any]
MAX_ROWS = 40
_UNKNOWN = Facts()
# Fields by which a record names what it was measured on.
_MACHINE = ("hardware", "gpu", "device_name", "device", "cpu", "torch", "diffusers", "transformers", "dtype")


def overview(run: RunRecords, scores: Mapping[str, Record]) -> list[Block]:
    """Score against cost.

    Args:
        scores: the score of each checkpoint on the page's main metric.
    """
    names = list(scores)[-MAX_ROWS:]
    if not names:
        return []
    facts = {name: run.lineages.facts.get(name, _UNKNOWN) for name in names}
    speed, whence = speeds(run)
    costs: dict[str, dict[str, float]] = {
        "parameters": {n: float(f.parameters) for n, f in facts.items() if f.parameters},
        "size": {n: float(f.bytes) for n, f in facts.items() if f.bytes},
        "images a second": {n: speed[n] for n in names if n in speed},
    }
    bars = {n: _bar(run, n, scores[n]) for n in names}
    score = score_name(next(iter(scores.values())))
    panels = {
        title: [(amount, bars[n]) for n, amount in amounts.items()]
        for title, amounts in costs.items()
        if amounts
    }
    parts: list[Block] = []
    if panels:
        parts.append(
            draw(
                lambda narrow: sizes_figure(panels, score, narrow=narrow),
                "sizes",
                f"{score} against parameters, size and speed of each checkpoint",
                legend=[(run.color(n), "dot", bars[n].label.replace("\n", ", ")) for n in names],
            )
        )
    rows = [_row(run, n, facts[n], scores[n], speed.get(n)) for n in names]
    head = ["checkpoint", score, "blocks", "parameters", "size", "images a second", "made by"]
    parts.append(Table(head, rows))
    parts.append(
        Note(" ".join(filter(None, [whence if any(n in speed for n in names) else "", _machine(run)])))
    )
    return parts


def _bar(run: RunRecords, name: str, record: Record) -> Bar:
    label = "\n".join(filter(None, (short_name(name), said_of_selection(record))))
    return Bar(label, float(record["value"]), interval_of(record.get("ci")), run.color(name))


def _row(run: RunRecords, name: str, facts: Facts, record: Record, speed: float | None) -> list[Cell]:
    unknown = Cell("-")
    size = unknown if facts.bytes is None else Cell(human_bytes(facts.bytes), (facts.dtypes,), facts.bytes)
    return [
        Cell(short_name(name), tuple(filter(None, [said_of_selection(record)])), color=run.color(name)),
        measured(record["value"], record.get("ci"), record.get("unit"), strong=True),
        unknown if facts.blocks is None else Cell(number(facts.blocks), order=facts.blocks),
        unknown if facts.parameters is None else Cell(compact(facts.parameters), order=facts.parameters),
        size,
        unknown if speed is None else Cell(f"{speed:.3g}", order=speed),
        Cell(_made_by(run.lineages.entries.get(name, ())), wide=True),
    ]


def _made_by(entries: Sequence[Mapping[str, Any]]) -> str:
    """The steps of a lineage in short: grow to 60, 100 steps, prune to 30."""
    said = []
    for entry in [e for e in entries if isinstance(e, Mapping)][-6:]:
        command, arguments = str(entry.get("command", "?")), entry.get("arguments")
        steps = arguments.get("steps") if isinstance(arguments, dict) else None
        if command == "finetune":
            said.append(counted(steps, "step") if type(steps) is int else "training")
        elif command in ("grow", "prune") and type(entry.get("blocks")) is int:
            said.append(f"{command} to {entry['blocks']}")
        else:
            said.append(plain(command, 24))
    return ", ".join(said) or "-"


def speeds(run: RunRecords) -> tuple[dict[str, float], str]:
    """(images a second of each checkpoint, where the numbers come from in a sentence).

    From score records of a speed; else from the journal: images of a `sample` folder over the seconds of its command.
    """
    found: dict[str, float] = {}
    for record in newest(run.scores):
        value = finite(record.get("images_per_second"))
        if value is None and record.get("unit") in ("images/s", "images per second", "images a second"):
            value = finite(record.get("value"))
        if record["metric"] == "speed" and value is not None and 0 < value < 1e9:
            found[str(record.get("checkpoint"))] = value
    if found or run.journal is None:
        return found, "Images a second as sanactl eval speed measured them."
    # A sample folder's images are FOLDER/PROMPT/samples/NAME.
    folders = Counter(str(r["path"]).rsplit("/", 3)[0] for r in run.images)
    for entry in run.journal.runs():
        seconds = finite(entry.get("seconds"))
        if entry.get("command") != "sample" or not seconds or seconds <= 0:
            continue
        for output in entry["outputs"]:
            count, name = folders.get(output["path"].rpartition("/")[0], 0), output.get("checkpoint")
            if count and isinstance(name, str):
                # Of several runs into a folder the slowest: the others found images that were there.
                found[name] = min(count / seconds, found.get(name, float("inf")))
    return (
        found,
        "Images a second: the images of a sample folder, divided by the seconds of its command, loading included.",
    )


def _machine(run: RunRecords) -> str:
    """What the numbers were measured on and with, as far as records and journal say."""
    said: dict[str, dict[str, None]] = {}
    # The journal's lines of `sample` name the machine that the images were drawn on.
    outputs = [output for e in run.journal.runs() for output in e["outputs"]] if run.journal else []
    for record in [*run.scores, *outputs]:
        for name in _MACHINE:
            if isinstance(record.get(name), str | int) and not isinstance(record[name], bool):
                said.setdefault(name, {})[plain(record[name], 60)] = None
    versions = {str(e["version"]) for e in run.journal.runs() if e.get("version")} if run.journal else set()
    if versions:
        said["sanactl"] = dict.fromkeys(plain(v, 20) for v in sorted(versions)[:4])
    text = "; ".join(
        f"{name.replace('_', ' ')} {', '.join(list(values)[:4])}" for name, values in said.items()
    )
    known = any(name in said for name in _MACHINE[:5])
    return (f"Measured with {text}." if text else "") + (
        "" if known else " The records do not name the machine."
    )
