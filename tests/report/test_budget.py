"""The best choice for a budget on a page: both figures, the front and the choice."""

from __future__ import annotations

from pathlib import Path

from sanactl.records.journal import Journal
from sanactl.report import build_report
from sanactl.report.blocks import Heading, Plot, Table
from sanactl.report.budget import budget_section
from sanactl.report.run import read_run


def scaling(checkpoint: str, steps: int, flops: float, values: list[float]) -> dict:
    points = [
        {"at": n, "value": v, "ci": [v - 0.1, v + 0.1], "cost": {"images": n, "flops": n * flops}}
        for n, v in zip((1, 2, 4), values, strict=True)
    ]
    curves = {"judge": points, "oracle": points}
    about = {"checkpoint": checkpoint, "steps": steps, "prompts": 12}
    return {
        "kind": "score",
        "metric": "scaling",
        "value": values[0],
        "axis": "images per prompt",
        "curves": curves,
    } | about


SCORES = [
    scaling("small.st", 4, 2e9, [0.3, 0.4, 0.5]),
    scaling("small.st", 20, 1e10, [0.4, 0.5, 0.6]),
    scaling("large.st", 20, 5e10, [0.6, 0.7, 0.8]),
]


def choice(value: float, flops: float, chosen: bool, budget: float = 1e11) -> dict:
    about = {
        "checkpoint": "small.st",
        "selection": "best-of-4 by tiny",
        "steps": 20,
        "chosen": chosen,
        "budget": budget,
    }
    cost = {"images": 4, "flops": flops}
    return {
        "kind": "score",
        "metric": "budget",
        "value": value,
        "axis": "FLOPs per prompt",
        "cost": cost,
        **about,
    }


def test_both_figures_and_the_choice(tmp_path: Path) -> None:
    records = [*SCORES, choice(0.1, 1e9, True, 1e9), choice(0.4, 1e10, False), choice(0.6, 4e10, True)]
    blocks = budget_section(read_run(records, None))
    titles = [b.text for b in blocks if isinstance(b, Heading)]
    assert titles == [
        "Small and large models",
        "Few and many steps",
        "The best choice within 100 GFLOPs per prompt",
    ]
    models, steps = (b for b in blocks if isinstance(b, Plot))
    assert [text for _, _, text in models.legend] == [
        "small.st, 20 steps",
        "large.st, 20 steps",
        "the best score for each cost",
    ]
    assert [text for _, _, text in steps.legend] == ["4 steps", "20 steps"]
    assert "0.6 (0.5 to 0.7)" in models.wide
    (table,) = (b for b in blocks if isinstance(b, Table))
    assert [(row[0].strong, row[6].text) for row in table.rows] == [(False, "10 GFLOPs"), (True, "40 GFLOPs")]
    page = build_report(records, Journal(tmp_path), tmp_path / "page.html").read_text()
    assert "Best choice for a budget" in page and page.count("budgetmodels") > 1


def test_little_or_nothing_to_buy() -> None:
    assert budget_section(read_run(SCORES[:1], None)) == []
    broken = [{**s, "curves": {"judge": [{"at": 1, "value": 0.5, "cost": None}, {"at": 2}]}} for s in SCORES]
    assert budget_section(read_run(broken, None)) == []
    # Without FLOPs, against images.
    plain = [
        {**s, "curves": {"judge": [{**p, "cost": {"images": p["at"]}} for p in s["curves"]["judge"]]}}
        for s in SCORES
    ]
    assert budget_section(read_run(plain, None)) == []
    blocks = budget_section(
        read_run([*plain, {**choice(0.6, 4e10, True), "axis": "images per prompt"}], None)
    )
    assert "images per prompt" in next(b for b in blocks if isinstance(b, Plot)).wide
