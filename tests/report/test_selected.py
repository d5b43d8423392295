"""A score of images that a judge selected is nowhere shown as the checkpoint's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sanactl.cli.frame.render_scores import show_scores
from sanactl.files.images import write_png
from sanactl.report import build_report
from sanactl.report.headline import find_headline, main_scores
from sanactl.report.labels import said_of_selection
from sanactl.report.overview import overview
from sanactl.report.pictures import Thumbnails
from sanactl.report.run import read_run
from sanactl.report.samples import strip
from tests.program import Program

SAID = "the judge's best of 2, 3 prompts, 3 of 6 tasks"


def score(name: str, value: float, selection: str | None, **more: Any) -> dict[str, Any]:
    part = {"value": value, "ci": None, "images": 1}
    tasks = dict.fromkeys(("single_object", "two_object", "counting"), part)
    known = {"checkpoint": name, "digest": f"sha256:{name}", "prompts": 3, "images": 3, "tasks": tasks}
    return {"kind": "score", "metric": "geneval", "value": value, "selection": selection, **known, **more}


BEST = score("base.st", 1.0, "best-of-2 by x")


def test_the_headline_says_what_was_selected() -> None:
    said = find_headline(read_run([BEST], None))
    assert said.question == "What is the score by GenEval's rules?"
    assert said.answer == f"1.00 ({SAID}) for base.st."


@pytest.mark.parametrize("first", [True, False])
def test_a_score_of_all_images_is_preferred(first: bool) -> None:
    every = score("base.st", 0.5, "single")
    run = read_run([every, BEST] if first else [BEST, every], None)
    assert find_headline(run).answer == "0.50 for base.st."
    assert [r["value"] for r in main_scores(run).values()] == [0.5]


def test_scores_of_other_selections_are_not_ranked_or_judged() -> None:
    two = read_run([score("a.st", 0.7, "single"), BEST], None)
    assert find_headline(two).answer == f"0.70 for a.st; 1.00 ({SAID}) for base.st."
    entry = {"command": "grow", "parents": [{"name": "base.st", "digest": "sha256:base.st"}], "blocks": 13}
    grown = {"kind": "checkpoint", "path": "a.st", "digest": "sha256:a.st", "lineage": [entry], "blocks": 13}
    base = {"kind": "checkpoint", "path": "base.st", "digest": "sha256:base.st", "lineage": [], "blocks": 10}
    interval = {"ci": [0.6, 0.8]}
    scores = [score("a.st", 0.7, "single", **interval), {**BEST, **interval}]
    said = find_headline(read_run([base, grown, *scores], None))
    assert said.answer == f"Not comparable: 0.70 against 1.00 ({SAID}) for base.st."
    assert said.tone == ""


@pytest.mark.parametrize(
    ("selection", "words"),
    [
        (None, ""),
        ("single", ""),
        ("best-of-16 by a by b", "the judge's best of 16"),
        ("best-of-2 to 4 by x", "the judge's best of 2 to 4"),
        ("best 4 of 16 by x", "the judge's best 4 of 16"),
        ("best-of-3 (of 16 drafts) by x", "the judge's best of 3 (of 16 drafts)"),
        ("best 3 of 16 drafts", "the judge's best 3 of 16 drafts"),
        ("best-of-n", "the judge's best of n"),
        ("by hand", "selected: by hand"),
    ],
)
def test_every_selection_has_words(selection: str | None, words: str) -> None:
    assert said_of_selection({"selection": selection, "prompts": 3}, counts=False) == words
    assert said_of_selection({"selection": selection, "prompts": 1}) == (words and f"{words}, 1 prompt")


def test_the_page_and_the_terminal_say_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = read_run([{**BEST, "images_per_second": 1.0}], None)
    (table,) = [block for block in overview(run, main_scores(run)) if block.kind == "table"]
    assert table.rows[0][0].small == (SAID,)
    page = build_report([BEST], None, tmp_path / "page.html").read_text()
    assert f"best geneval, {SAID}".replace("'", "&#39;") in page
    assert "best of 2 by x" in page
    show_scores([BEST])
    assert f"geneval of base.st, {SAID}, 3 images" in " ".join(capsys.readouterr().out.split())


def images(folder: Path, prompt: str, count: int, **more: Any) -> list[dict[str, Any]]:
    found = []
    for index in range(count):
        path = folder / f"{prompt}-{index}.png"
        write_png(np.full((64, 64, 3), 40 * index, np.uint8), path)
        known = {"kind": "image", "path": path.name, "prompt": prompt, "checkpoint": "base.st"}
        found.append({**known, "index": index, **more})
    return found


def test_the_judges_choice_is_of_what_it_saw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four images of one prompt that no judge saw, two prompts with two that it did, and one with three."""
    monkeypatch.chdir(tmp_path)
    records = images(tmp_path, "unseen", 4)
    for prompt, count in (("a", 2), ("b", 2)):
        seen = images(tmp_path, prompt, count, judge="x", samples=count)
        records += [{**r, "rank": count - 1 - i} for i, r in enumerate(seen)]
    shown = strip(read_run(records, None), [], Thumbnails(tmp_path))
    assert shown is not None and list(shown.prompts) == ["unseen", "a", "b"]
    every, best = shown.rows
    assert (every.note, best.note) == ("", "the judge's choice of 2")
    assert [picture and (picture.of, picture.winner) for picture in best.pictures] == [
        None,
        ("base.st, image 2", True),
        ("base.st, image 2", True),
    ]
    # The winner alone of three: its record says out of how many. Another image of the prompt was drawn later.
    (winner,) = images(tmp_path, "c", 1, judge="x", samples=3, rank=0)
    later = {**images(tmp_path, "c", 2)[1]}
    shown = strip(read_run([*records, winner, later], None), [], Thumbnails(tmp_path))
    assert shown is not None and shown.rows[-1].note == "the judge's choice of 2 to 3"
    unseen = strip(read_run(records[:4], None), [], Thumbnails(tmp_path))
    assert unseen is not None and len(unseen.rows) == 1


def test_images_of_two_commands(place: Path, sanactl: Program) -> None:
    """As a user does it: four images of a prompt, then two of each of three prompts for the judge."""
    draw = ("sample", "tiny.st", "--steps", "1")
    four = sanactl(*draw, "--prompt", "a red circle", "-n", "4", "-o", "four")
    Path("three.txt").write_text("a blue star\ntwo red squares\na green circle\n")
    drawn = sanactl(*draw, "-p", "three.txt", "-n", "2", "-o", "two")
    Path("drawn.jsonl").write_text("".join(json.dumps(r) + "\n" for r in [*four, *drawn]))
    best = sanactl("judge", "-", stdin="".join(json.dumps(r) + "\n" for r in drawn))
    assert len(best) == 3
    Path("best.jsonl").write_text("".join(json.dumps(r) + "\n" for r in best))
    sanactl("report", "drawn.jsonl", "best.jsonl", "-o", "page.html")
    page = Path("page.html").read_text()
    assert "the judge&#39;s choice of 2<" in page
    assert "choice of 4" not in page


def test_the_machine_is_named(place: Path, sanactl: Program) -> None:
    import torch

    sanactl("sample", "tiny.st", "--prompts", "shapes", "--limit", "6", "-n", "1", "--steps", "1")
    sanactl("eval", "geneval")
    sanactl("report", "-o", "r.html")
    page = Path("r.html").read_text()
    assert f"torch {torch.__version__}" in page
    assert "do not name the machine" not in page
