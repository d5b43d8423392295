"""A report's pictures: thumbnails, winners, charts of their own."""

from __future__ import annotations

import numpy as np
import pytest

from sanactl.errors import InputError, OutputExistsError, UsageError
from sanactl.files.images import write_png
from sanactl.records.journal import Journal
from sanactl.report import build_report
from sanactl.report.images import merge_images, winners
from sanactl.report.plots import plot_importance
from tests.report.test_report import Page, blocks


def test_large_images_become_thumbnails_until_the_room_is_used_up(tmp_path, monkeypatch):
    monkeypatch.setattr("sanactl.report.pictures.BUDGET", 800_000)
    rng = np.random.default_rng(0)
    images = []
    for number in range(14):
        path = tmp_path / f"{number}.png"
        write_png(rng.integers(0, 256, (100, 140, 3), dtype=np.uint8), path)
        images += [
            {
                "kind": "image",
                "path": f"./{'./' * copy}{path.name}",
                "prompt": f"p{number}",
                "tag": f"t{number % 3}",
            }
            for copy in range(20)
        ]
    journal = Journal(tmp_path)
    text = build_report(images, journal, tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    shown = [a for tag, a in page.tags if tag == "img" and "src" in a]
    assert 50 < len(shown) <= 12 * 16
    assert all(str(a["src"]).startswith("data:image/jpeg") for a in shown)
    assert "16 of 20 images shown" in page.text
    assert "left out" in page.text
    assert len(text.encode()) < 1_000_000


def test_winners_are_those_that_the_judge_kept():
    images = [{"path": str(i)} for i in range(4)]
    ranked = [{**r, "rank": i} for i, r in enumerate(images)]
    assert winners(images) == set()
    assert winners(ranked) == {"0"}
    assert winners([*ranked[:2], *images[2:]]) == {"0", "1"}
    # One that no judge has seen does not make winners of those that were all ranked.
    whole = [{**r, "samples": 4} for r in ranked]
    assert winners([*whole, {"path": "other", "samples": 1}]) == {"0"}
    assert winners([*whole[:2], {"path": "other", "samples": 1}]) == {"0", "1"}
    records: list[dict[str, object]] = [{"kind": "image", **images[0], "seed": 1}, {"kind": "score"}]
    records.append({"kind": "image", **ranked[0]})
    (merged,) = merge_images(records)
    assert {k: v for k, v in merged.items() if k != "ranks"} == {**records[0], "rank": 0}


def test_a_second_judge_does_not_undo_the_first():
    """Both judges' winners are marked: the first ranked four images, the second only the two that were kept."""
    first = [{"kind": "image", "path": str(i), "judge": "a", "rank": i, "samples": 4} for i in range(4)]
    second = [{**first[1], "judge": "b", "rank": 0}]
    merged = merge_images([*first, *second, {**first[2], "ranks": {"x": [0, 1]}}])
    assert winners(merged) == {"0", "1"}


def test_importance_charts_stand_alone(tmp_path):
    records = [{**r, "stderr": 0.01} for r in blocks("a$b_c$.st", 12)] + blocks("b.st", 60)
    assert plot_importance(records, tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")
    svg = plot_importance(records, tmp_path / "chart.svg", kept={"b.st": range(30)}).read_text()
    assert "a$b_c$.st: 12 blocks" in svg
    assert "b.st: 60 blocks, 30 kept by pruning" in svg
    with pytest.raises(UsageError, match=r"\.png or \.svg"):
        plot_importance(records, tmp_path / "chart.pdf")
    with pytest.raises(OutputExistsError):
        plot_importance(records, tmp_path / "chart.png")
    with pytest.raises(InputError, match="no block records"):
        plot_importance([], tmp_path / "none.svg")
    with pytest.raises(InputError, match="without a number"):
        plot_importance([{"checkpoint": "a", "block": 0}], tmp_path / "none.svg")
    assert not (tmp_path / "none.svg").exists()


def test_scoring_again_replaces_a_score_of_an_earlier_version(tmp_path):
    """The older shape has the same checkpoint and detector, and no protocol; another protocol is another score."""
    old = {"kind": "score", "metric": "geneval", "overall": 0.25, "ci": [0.1, 0.4], "checkpoint": "a.st"}
    old["tasks"] = {"colors": {"score": 0.25, "ci": [0.1, 0.4], "images": 8}}
    new = {"kind": "score", "metric": "geneval", "value": 0.75, "ci": [0.6, 0.9], "checkpoint": "a.st"}
    new |= {"protocol": "rules", "tasks": {"colors": {"value": 0.75, "ci": None, "images": 8}}}

    def shown(*records):
        text = build_report(records, None, tmp_path / "page.html", force=True).read_text(encoding="utf-8")
        return [value in Page(text).text for value in ("0.250 0.10 to 0.40", "0.750 0.60 to 0.90", "0.875")]

    assert shown(old) == [True, False, False]
    assert shown(old, new) == [False, True, False]
    assert shown(old, new, {**new, "protocol": "other rules", "value": 0.875}) == [False, True, True]
