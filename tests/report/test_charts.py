"""Charts of little: one step of training, one perfect score."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sanactl.report import build_report
from sanactl.report.curves import Point, curves_figure
from sanactl.report.headline import find_headline
from sanactl.report.overview import overview
from sanactl.report.plots import Bar, sizes_figure
from sanactl.report.run import read_run
from sanactl.report.training import training_section


def steps(run: str, count: int) -> list[dict[str, Any]]:
    known = {"kind": "score", "metric": "train_loss", "checkpoint": run, "run": run}
    return [{**known, "step": step, "loss": 1.0 / step} for step in range(1, count + 1)]


def test_one_step_is_no_curve(tmp_path: Path) -> None:
    one = training_section(read_run(steps("a.st", 1), None))
    assert [block.kind for block in one] == ["table"]
    plot, table = training_section(read_run([*steps("a.st", 1), *steps("b.st", 2)], None))
    assert [text for _, _, text in plot.legend] == ["b.st"]
    assert len(table.rows) == 2
    build_report(steps("a.st", 1), None, tmp_path / "page.html")


@pytest.mark.parametrize(("count", "words"), [(1, "1 step"), (2000, "2,000 steps")])
def test_one_step_is_a_step(tmp_path: Path, count: int, words: str) -> None:
    parent = {"name": "base.st", "digest": "sha256:base.st"}
    entry = {"command": "finetune", "arguments": {"steps": count}, "parents": [parent], "blocks": 10}
    base: dict[str, Any] = {
        "kind": "checkpoint",
        "path": "base.st",
        "digest": "sha256:base.st",
        "lineage": [],
    }
    tuned: dict[str, Any] = {
        "kind": "checkpoint",
        "path": "a.st",
        "digest": "sha256:a.st",
        "lineage": [entry],
    }
    tasks = {"colors": {"value": 0.5, "ci": None, "images": 8}}
    scores: list[dict[str, Any]] = [
        {"kind": "score", "metric": "geneval", "value": 0.5, "tasks": tasks, "checkpoint": name}
        for name in ("base.st", "a.st")
    ]
    records = [base, tuned, *scores]
    run = read_run(records, None)
    assert f"after {words} of training" in find_headline(run).answer
    (table,) = [b for b in overview(run, {s["checkpoint"]: s for s in run.scores}) if b.kind == "table"]
    assert table.rows[1][-1].text == words
    page = build_report(records, None, tmp_path / "page.html").read_text()
    assert words in page and "1 steps" not in page


@pytest.mark.parametrize("narrow", [False, True])
def test_an_axis_of_scores_ends_at_one(narrow: bool) -> None:
    cases: list[tuple[list[Bar], tuple[float, float]]] = [
        ([Bar("a", 1.0)], (0.0, 1.0)),
        ([Bar("a", 0.0)], (0.0, 1.0)),
        ([Bar("a", 0.9, (0.8, 1.0))], (0.79, 1.0)),
        ([Bar("a", 20.0), Bar("b", 30.0)], (19.5, 30.5)),
    ]
    for bars, limits in cases:
        figure = sizes_figure({"size": [(1e6, bar) for bar in bars]}, "score", narrow=narrow)
        assert figure.axes[0].get_ylim() == pytest.approx(limits)
    curve = [Point(1, 0.6, (0.5, 0.8)), Point(2, 1.0, (0.9, 1.0))]
    axis = curves_figure({"a": {"judge": curve}}, "images", {}, narrow=narrow).axes[0]
    assert axis.get_ylim()[1] == 1.0 and 0.4 < axis.get_ylim()[0] < 0.5
