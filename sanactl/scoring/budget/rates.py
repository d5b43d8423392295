"""Seconds of an image, as the folder's journal knows them from its runs of `sample` and `judge`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sanactl.records.journal import Journal
from sanactl.scoring.budget.setups import Setup
from sanactl.scoring.geneval.pools import Costs

__all__ = ["with_seconds"]


def with_seconds(setups: Sequence[Setup], journal: Journal | None, speed: float | None) -> list[Setup]:
    """The setups with seconds of drawing and of judging an image.

    Args:
        journal: images of a folder over the seconds of the command that drew or judged them, loading included. Of
            several runs the slowest counts: the others found images or verdicts that were there. Commands of one pipe
            wait for each other, so that each one's seconds are those of the whole pipe.
        speed: FLOPs a second, in place of the journal.
    """
    if speed is not None:
        return [_at_speed(setup, speed) for setup in setups]
    runs = [e for e in journal.runs() if e.get("command") in ("sample", "judge")] if journal else []
    return [_measured(setup, runs, journal) if journal else setup for setup in setups]


def _with(setup: Setup, seconds: float | None, judge_seconds: float | None) -> Setup:
    assert setup.pools is not None
    costs = replace(setup.pools.costs, seconds=seconds, judge_seconds=judge_seconds)
    return replace(setup, pools=replace(setup.pools, costs=costs))


def _at_speed(setup: Setup, speed: float) -> Setup:
    if setup.pools is None:
        scores = [
            {**r, "curves": {n: _priced(c, speed) for n, c in r["curves"].items()}} for r in setup.scores
        ]
        return replace(setup, scores=scores)
    costs: Costs = setup.pools.costs
    seconds, judge_seconds = (None if f is None else f / speed for f in (costs.flops, costs.judge_flops))
    return _with(setup, seconds, judge_seconds)


def _priced(curve: Sequence[dict[str, Any]], speed: float) -> list[dict[str, Any]]:
    return [
        {**point, "cost": {**cost, "seconds": cost["flops"] / speed}}
        for point in curve
        if (cost := point.get("cost") or {}).get("flops") is not None
    ]


def _measured(setup: Setup, runs: Sequence[dict[str, Any]], journal: Journal) -> Setup:
    if setup.pools is None or not setup.folders:
        return setup
    folders = {journal.relative(folder): count for folder, count in setup.folders.items()}
    found: dict[str, float] = {}
    for run in runs:
        seconds, command = run.get("seconds"), str(run["command"])
        # sample's output lies in its folder; judge's input does.
        files = run["outputs"] if command == "sample" else run["inputs"]
        places = {os.path.dirname(file["path"]) for file in files} | {file["path"] for file in files}
        count = sum(folders.get(place, 0) for place in places)
        judges = {output.get("judge") for output in run["outputs"]}
        if not seconds or seconds <= 0 or not count:
            continue
        if command == "sample" or setup.about.get("judge") in judges:
            found[command] = max(found.get(command, 0.0), seconds / count)
    return _with(setup, found.get("sample"), found.get("judge"))
