"""Scores of checkpoints in a table laid out like the paper's table 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sanactl.records.records import Record
from sanactl.scoring.geneval.coverage import WHOLE_GENEVAL

__all__ = ["HEADINGS", "TABLE_METRICS", "TableOne", "as_markdown", "table_one"]

HEADINGS = (
    "model", "throughput", "latency", "params", "speedup", "FID", "CLIP", "GenEval", "DPG",
)  # fmt: skip
_SPEEDS = {"speed": "", "speed_diffusers": "SanaPipeline, "}


@dataclass(frozen=True)
class TableOne:
    """A table.

    Attributes:
        rows: a cell for each of `HEADINGS`; "" where nothing was measured.
        notes: how the columns were measured, a line each.
    """

    rows: list[tuple[str, ...]]
    notes: list[str]


def table_one(scores: Sequence[Record]) -> TableOne:
    """The table of some scores; of several of one metric and checkpoint the last counts.

    A checkpoint is known by its digest, else by its name; images that a judge chose have a row of their own. Speedup is the throughput over that of the slowest row, as the
    paper's is over that of FLUX-dev, where two rows or more have one.
    """
    rows: dict[tuple[str, str, str], dict[str, Record]] = {}
    for score in scores:
        if score["metric"] in _COLUMNS or score["metric"] in _SPEEDS:
            named = str(score.get("digest") or score.get("checkpoint") or "")
            program = _SPEEDS.get(score["metric"], "")
            chosen = "" if score.get("selection") in (None, "single") else f", {score['selection']}"
            if score.get("value") is not None:
                name = "speed" if score["metric"] in _SPEEDS else _COLUMNS[score["metric"]]
                rows.setdefault((named, program, chosen), {})[name] = score
    slowest = min((_number(r["speed"], "value") for r in rows.values() if "speed" in r), default=0.0)
    several = sum("speed" in r for r in rows.values()) > 1
    cells = [
        _row(found, program, chosen, slowest if several else 0.0)
        for (_, program, chosen), found in rows.items()
    ]
    return TableOne(cells, _notes([r for found in rows.values() for r in found.values()]))


# Columns by metric. The official rules of DPG-Bench are those of published numbers; either is named in a note.
_COLUMNS = {"fid": "FID", "clip": "CLIP", "geneval": "GenEval", "dpg": "DPG", "dpg_official": "DPG"}
TABLE_METRICS = frozenset([*_COLUMNS, *_SPEEDS])


def _row(found: Mapping[str, Record], program: str, chosen: str, slowest: float) -> tuple[str, ...]:
    first = next(iter(found.values()))
    name = str(first.get("checkpoint") or "these images").replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]
    cells = [program + name + chosen]
    speed = found.get("speed")
    if speed is None:
        cells += ["", "", "", ""]
    else:
        rate = _number(speed, "value")
        parameters = _number(speed, "parameters")
        shown = f"{parameters / 1e9:.1f}B" if parameters >= 1e8 else f"{parameters / 1e6:.1f}M"
        cells += [
            f"{rate:.3g}/s",
            f"{_number(speed, 'latency'):.3g} s" if speed.get("latency") else "",
            shown if parameters else "",
            f"{rate / slowest:.2f}x" if slowest > 0 else "",
        ]
    for column in ("FID", "CLIP", "GenEval", "DPG"):
        score = found.get(column)
        digits = 3 if column == "GenEval" else 2
        cells.append("" if score is None else f"{_number(score, 'value'):.{digits}f}")
    return tuple(cells)


def _number(score: Mapping[str, Any], name: str) -> float:
    value = score.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0


def _notes(scores: Sequence[Record]) -> list[str]:
    said: dict[str, None] = {}
    for score in scores:
        said.setdefault(_NOTES[_COLUMNS.get(score["metric"], "speed")](score), None)
    return sorted(said)


def _speed_note(score: Record) -> str:
    size = f"{score.get('width')} x {score.get('height')} pixels, {score.get('steps')} steps"
    weights = ", random weights" if score.get("weights") == "random" else ""
    return (
        f"throughput in images a second, in batches of {score.get('batch')}, latency of one image: {size}, {score.get('dtype')} on "
        f"{score.get('hardware')}{weights}"
    )


def _fid_note(score: Record) -> str:
    return (
        f"FID of {_count(score, 'images')} images against {_count(score, 'reference_images')} of "
        f"{score.get('reference')}, protocol {score.get('protocol')}, {score.get('features')} features of {score.get('model')}"
    )


def _clip_note(score: Record) -> str:
    return f"CLIP score of {_count(score, 'images')} images by {score.get('model')}"


def _geneval_note(score: Record) -> str:
    whole = score.get("benchmark") == WHOLE_GENEVAL
    prompts = (
        "GenEval" if whole else f"GenEval's rules on {score.get('benchmark') or 'other prompts'}, not GenEval"
    )
    return f"{prompts}: {_count(score, 'images')} images, detector {score.get('detector')}"


def _dpg_note(score: Record) -> str:
    rules = "the official rules" if score["metric"] == "dpg_official" else "the mended rules"
    more = f"; {score['note']}" if isinstance(score.get("note"), str) else ""
    prompts = score.get("benchmark") or f"{_count(score, 'prompts')} prompts"
    return f"DPG by {rules}, {prompts}, answers of {score.get('model')}{more}"


def _count(score: Record, name: str) -> str:
    value = score.get(name)
    return f"{value:,}" if type(value) is int else "?"


_NOTES = {
    "speed": _speed_note,
    "FID": _fid_note,
    "CLIP": _clip_note,
    "GenEval": _geneval_note,
    "DPG": _dpg_note,
}


def as_markdown(table: TableOne) -> str:
    """The table and its notes as Markdown."""
    lines = [f"| {' | '.join(HEADINGS)} |", f"|{'---|' * len(HEADINGS)}"]
    lines += [f"| {' | '.join(_cell(cell) for cell in row)} |" for row in table.rows]
    return "\n".join([*lines, "", *(f"- {_cell(note)}" for note in table.notes), ""])


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split()) or "-"
