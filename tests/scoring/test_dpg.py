"""`eval dpg`: the mended arithmetic, grids, kept answers, mPLUG's answers."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sanactl.cli.app import main
from sanactl.files.images import write_png
from tests.program import Program
from tests.scoring.answerers import Coins, is_yes
from tests.scoring.dpg_tables import Row, draw, row, write_table

CHAIN = [
    row("a", 3, "2", "relation - spatial", "Is the circle left of the star?"),
    row("a", 1, "0", "entity - whole", "Is there a circle?"),
    row("a", 2, "1", "attribute - color", "Is the circle red?"),
    row("a", 4, "0", "entity - whole", "Is there a star?"),
    row("b", 1, "0", "entity - whole", "Are there two stars?"),
]


def test_mended_scores_are_those_counted_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sanactl: Program
) -> None:
    """Rows of `a` stand before their parents. Images of `a`: all right; no circle, so that its children are wrong; a blue
    circle, so that its place does not count, though it is right. Images of `b`: two stars, one star, none."""
    monkeypatch.chdir(tmp_path)
    write_table(Path("table.csv"), [*CHAIN, CHAIN[4]])
    red, blue, star = ("circle", "red", 0.25, 0.5), ("circle", "blue", 0.25, 0.5), ("star", "blue", 0.75, 0.5)
    drawn: dict[str, list[tuple[tuple[str, str, float, float], ...]]] = {
        "a": [(red, star), (star,), (blue, star)],
        "b": [(star, ("star", "red", 0.25, 0.5)), (star,), (red,)],
    }
    lines = []
    for item, scenes in drawn.items():
        for number, items in enumerate(scenes):
            draw(Path(f"{item}{number}.png"), *items)
            record = {
                "kind": "image",
                "path": f"{item}{number}.png",
                "prompt": "x",
                "item_id": item,
                "samples": 3,
            }
            lines.append(json.dumps(record))
    Path("images.jsonl").write_text("\n".join(lines))
    *images, score = sanactl("eval", "dpg", "images.jsonl", "--questions", "table.csv", "--vqa", "shapes")
    assert [r["dpg_score"] for r in images] == [100, 25, 50, 100, 0, 0]
    assert images[2]["dpg_answers"] == [{"1": "yes", "2": "no", "3": "yes", "4": "yes"}]
    # a: (4/4 + 1/4 + 2/4) / 3 = 7/12; b: 1/3.
    assert score["value"] == pytest.approx(100 * (7 / 12 + 1 / 3) / 2, abs=1e-3)
    assert {name: task["value"] for name, task in score["tasks"].items()} == pytest.approx(
        {
            "entity": 100 * (2 / 3 + 1 + 1 / 3) / 3, "attribute": 100 / 3, "relation": 100 / 3,
            "entity - whole": 100 * 2 / 3, "attribute - color": 100 / 3, "relation - spatial": 100 / 3,
        }, abs=1e-3,
    )  # fmt: skip
    assert (score["images"], score["prompts"], score["questions"]) == (6, 2, 15)
    assert score["model"] == "oracle:shapes-1"
    assert score["benchmark"] == "the 2 prompts of table.csv"
    assert score["questions_digest"].startswith("sha256:")
    assert score["note"] == "not comparable with mPLUG scores"
    assert "not comparable with mPLUG scores" in sanactl.said
    assert "1 rows of the table are there twice" in sanactl.said
    assert not Path("dpg.answers.jsonl").exists()
    official = sanactl(
        "eval", "dpg", "images.jsonl", "--questions", "table.csv", "--vqa", "shapes", "--protocol", "official",
        "-o", "official.jsonl",
    )[-1]  # fmt: skip
    assert official["metric"] == "dpg_official"
    # Without the first row: 1, 2 and 4 of `a`, in this order, so that a no reaches the child. Categories: the last images.
    assert official["value"] == pytest.approx(100 * ((3 + 1 + 2) / 9 + 1 / 3) / 2, abs=1e-3)
    assert official["tasks"]["entity"]["value"] == pytest.approx(100 * 2 / 3, abs=1e-3)
    assert official["tasks"]["attribute"]["value"] == 0
    assert "relation" not in official["tasks"]


def test_from_prompts_to_score_in_the_built_in_world(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sanactl: Program
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{**r, "text": f"a photo of {r['item_id']} star"} for r in CHAIN]
    write_table(Path("table.csv"), rows)
    prompts = sanactl("prompts", "dpg", "table.csv")
    assert prompts[0] == {"kind": "prompt", "id": "a", "item_id": "a", "prompt": "a photo of a star"}
    Path("texts").mkdir()
    for record in prompts:
        Path(f"texts/{record['item_id']}.txt").write_text(record["prompt"] + "\n")
    assert sanactl("prompts", "dpg", "texts") == prompts
    Path("prompts.jsonl").write_text("".join(json.dumps(p) + "\n" for p in prompts))
    sanactl("sample", "--prompts", "prompts.jsonl", "-n", "2", "--steps", "2", "-o", "many")
    *images, score = sanactl("eval", "dpg", "many", "--questions", "table.csv", "--vqa", "shapes")
    assert [r["item_id"] for r in images] == ["a", "a", "b", "b"]
    assert (score["metric"], score["images"], score["prompts"]) == ("dpg", 4, 2)
    assert score["checkpoint"].endswith("base.st")


def grids(side: int, padding: int, count: int = 3) -> list[str]:
    """Grids item0.png ... and the same images as single ones with records in images.jsonl; the items' names."""
    rng, lines = np.random.default_rng(1), []
    Path("grids").mkdir(exist_ok=True)
    for number in range(count):
        size = 2 * side + 3 * padding
        whole = np.zeros((size, size, 3), dtype=np.uint8)
        for place in range(4):
            y, x = (padding + (side + padding) * n for n in divmod(place, 2))
            whole[y : y + side, x : x + side] = rng.integers(0, 256, (side, side, 3))
            write_png(whole[y : y + side, x : x + side], Path(f"{number}-{place}.png"))
            record = {
                "kind": "image",
                "path": f"{number}-{place}.png",
                "prompt": "x",
                "prompt_id": f"item{number}",
            }
            lines.append(json.dumps({**record, "index": place}))
        write_png(whole, Path(f"grids/item{number}.png"))
    # The official rules take the categories from the image of the highest index, wherever it comes.
    Path("images.jsonl").write_text("\n".join(lines[::-1]))
    return [f"item{number}" for number in range(count)]


def table_of(names: list[str]) -> list[Row]:
    return [row(n, q, str(q // 2), "entity - whole", f"{n} {q}?") for n in names for q in range(1, 7)]


@pytest.mark.parametrize("padding", [0, 2])
def test_grids_are_scored_as_their_images(coins: Coins, sanactl: Program, padding: int) -> None:
    write_table(Path("table.csv"), table_of(grids(5, padding)))
    command = ("--questions", "table.csv", "--vqa", "coins", "--force")
    for protocol in ("fixed", "official"):
        if padding and protocol == "official":
            continue  # its parts are shifted
        single = sanactl("eval", "dpg", "images.jsonl", *command, "--protocol", protocol)[-1]
        options = ("--protocol", protocol, "--resolution", "5", "-o", "g.jsonl")
        *images, score = sanactl("eval", "dpg", "grids", *command, *options)
        assert [len(r["dpg_answers"]) for r in images] == [4, 4, 4]
        assert score == {**single, "selection": score["selection"]}
        assert score["images"] == (12 if protocol == "fixed" else 8)  # without the first item
    said = sanactl.fails(
        "eval",
        "dpg",
        "grids",
        "--questions",
        "table.csv",
        "--vqa",
        "coins",
        "--resolution",
        "4",
        "-o",
        "x.jsonl",
    )
    assert "is no grid of 2 x 2 images of 4 px; --resolution is the size of one image: 8 px a side" in said


def test_kept_answers_are_scored_by_other_rules_without_the_model(coins: Coins, sanactl: Program) -> None:
    write_table(Path("table.csv"), table_of(grids(4, 0)))
    command = ("eval", "dpg", "images.jsonl", "--questions", "table.csv", "--vqa", "coins")
    sanactl(*command)
    assert len(coins.asked) == 3 * 4 * 6
    lines = [json.loads(line) for line in Path("dpg.answers.jsonl").read_text().splitlines()]
    assert len(lines) == 3 * 4 * 2  # six questions in batches of four
    assert lines[0]["answers"][0][1] == "Please answer yes or no."
    sanactl(*command, "--protocol", "official", "-o", "o.jsonl")
    assert len(coins.asked) == 3 * 4 * 6
    assert "answers were there already" in sanactl.said
    sanactl(*command, "--answers", "off", "-o", "p.jsonl")
    assert len(coins.asked) == 2 * 3 * 4 * 6
    # A line that a kill has cut short is passed over; a damaged one is named.
    text = Path("dpg.answers.jsonl").read_text()
    Path("dpg.answers.jsonl").write_text(text[:-20])
    coins.asked.clear()
    sanactl(*command, "--force")
    assert len(coins.asked) == 2
    Path("dpg.answers.jsonl").write_text(text.replace("0.9", "9.0"))
    assert "dpg.answers.jsonl: the answers of 2-3.png are damaged" in sanactl.fails(*command, "-o", "q.jsonl")


@pytest.mark.parametrize("answers", ["off", "kept.jsonl"])
def test_a_stopped_run_goes_on(coins: Coins, sanactl: Program, answers: str) -> None:
    write_table(Path("table.csv"), table_of(grids(4, 0)))
    command = [
        "eval",
        "dpg",
        "images.jsonl",
        "--questions",
        "table.csv",
        "--vqa",
        "coins",
        "--answers",
        answers,
    ]

    def stop(number: int) -> None:
        if number >= 30:
            raise KeyboardInterrupt

    coins.trouble = stop
    assert main(command) == 130
    assert len(coins.asked) == 30
    assert not Path("dpg.jsonl").exists()
    coins.trouble = lambda number: None
    *images, score = sanactl(*command)
    assert (len(coins.asked), len(images), score["questions"]) == (72, 12, 72)
    assert "30 answers were there already" in sanactl.said


def test_what_is_missing_or_not_in_the_table_is_one_line(coins: Coins, sanactl: Program) -> None:
    names = grids(4, 0)
    write_table(Path("table.csv"), table_of([*names, "item9"]))
    command = (
        "eval",
        "dpg",
        "images.jsonl",
        "--questions",
        "table.csv",
        "--vqa",
        "coins",
        "--answers",
        "off",
    )

    def fails(*more: str) -> str:
        sanactl(*command, *more, code=1)
        return sanactl.said.splitlines()[-1]

    assert "1 of the questions' prompts have no image, the first 'item9'; sample what is" in fails()
    assert sanactl(*command, "--allow-missing")[-1]["benchmark"] == "3 of the 4 prompts of table.csv"
    write_table(Path("table.csv"), table_of(names))
    lines = Path("images.jsonl").read_text().splitlines()
    Path("images.jsonl").write_text("\n".join(lines[1:]))
    assert "'item2' has 3 of 4 images" in fails("-o", "b.jsonl")
    Path("images.jsonl").write_text("\n".join([*lines, lines[0]]))
    assert "2-3.png comes twice" in fails("-o", "c.jsonl")
    write_table(Path("table.csv"), table_of(names[1:]))
    Path("images.jsonl").write_text("\n".join(lines))
    assert "0-3.png: the table has no item 'item0'; records need the item_id" in fails("-o", "d.jsonl")
    *_, score = sanactl(*command, "--allow-missing", "-o", "e.jsonl")
    assert score["prompts"] == 2
    Path("0-2.png").write_bytes(b"no image")
    write_table(Path("table.csv"), table_of(names))
    assert "0-2.png: not a readable image" in fails("-o", "f.jsonl")
    *images, score = sanactl(*command, "--protocol", "official", "-o", "g.jsonl")
    # Item0's first row is skipped, too, on which its other questions depend.
    assert (score["prompts"], score["left_out"], len(images)) == (2, 1, 12)
    assert "0-2.png: not a readable image" in sanactl.said
    said = sanactl.fails("eval", "dpg", "images.jsonl", "-o", "h.jsonl", code=2)
    assert "--questions and --vqa are needed: DPG-Bench's table, and what answers its questions" in said
    Path("empty.jsonl").write_text("")
    sanactl("eval", "dpg", "empty.jsonl", *command[3:], "-o", "h.jsonl", code=1)
    assert "empty.jsonl: no images to score in it" in sanactl.said


@pytest.mark.parametrize("answer", [math.nan, math.inf, -0.1, 1.5])
def test_no_probability_is_one_line(coins: Coins, sanactl: Program, answer: float) -> None:
    write_table(Path("table.csv"), table_of(grids(4, 0)))
    coins.answers = lambda image, one: (answer, 0.5)
    said = sanactl.fails("eval", "dpg", "images.jsonl", "--questions", "table.csv", "--vqa", "coins")
    assert "2-3.png: coins gives no probability for 'item2 1?'" in said


def test_mplugs_scores_are_comparable(coins: Coins, sanactl: Program) -> None:
    write_table(Path("table.csv"), table_of(grids(4, 0)))
    for name, same in (("damo/mplug_visual-question-answering_coco_large_en", True), ("mPLUG-Owl3", False)):
        coins.label = name
        command = ("--questions", "table.csv", "--vqa", "coins", "--force")
        assert ("note" not in sanactl("eval", "dpg", "images.jsonl", *command)[-1]) == same
        assert ("comparable" not in sanactl.said) == same


def test_answers_of_the_official_script_are_scored_by_the_mended_rules(
    coins: Coins, sanactl: Program
) -> None:
    names = grids(5, 0)
    rows = table_of(names)
    rows[8]["question_natural_language"] = "Is it (1, 2, 3, 4), or not, no?"
    write_table(Path("table.csv"), rows)
    corners = [(0, 0), (5, 0), (0, 5), (5, 5)]
    lines: list[str] = []
    for name in names:
        grid = np.asarray(Image.open(f"grids/{name}.png"))
        for x, y in corners:
            for r in rows[1:]:
                question = r["question_natural_language"]
                if r["item_id"] == name:
                    answer = "yes" if is_yes(grid[y, x], question) else ("no", "2")[len(lines) % 2]
                    lines.append(
                        f"/some/where, else/{name}.png, ({x}, {y}, {x + 5}, {y + 5}), {question}, {answer}\n"
                    )
    Path("out_detail.txt").write_text("".join(lines))
    command = ("eval", "dpg", "grids", "--questions", "table.csv", "--resolution", "5", "--force")
    for protocol in ("official", "fixed"):
        options = ("--protocol", protocol, "--allow-missing")
        *_, asked = sanactl(*command, "--vqa", "coins", *options, "-o", "asked.jsonl")
        *images, score = sanactl(*command, "--vqa", "mplug:out_detail.txt", *options)
        assert score["model"] == "damo/mplug_visual-question-answering_coco_large_en"
        assert "note" not in score and "comparable" not in sanactl.said
        assert (score["prompts"], score["left_out"]) == (2, 1)
        if protocol == "official":
            assert (score["value"], score["tasks"]) == (asked["value"], asked["tasks"])
    assert [r["dpg_score"] is None for r in images] == [True, False, False]
    assert "item0.png: mPLUG was not asked all questions about it, as 'item0 1?'" in sanactl.fails(
        *command[:-1], "--vqa", "mplug:out_detail.txt", "-o", "x.jsonl"
    )
    # Without the first item both have all answers.
    Path("grids/item0.png").unlink()
    write_table(Path("table.csv"), rows[6:])
    *_, asked = sanactl(*command, "--vqa", "coins", "-o", "asked.jsonl")
    *_, score = sanactl(*command, "--vqa", "mplug:out_detail.txt")
    assert (score["value"], score["tasks"]) == (asked["value"], asked["tasks"])
    for text, said in (("x\n", "line 1: no answer of the official script"), ("", "holds no answers")):
        Path("out_detail.txt").write_text(text)
        assert said in sanactl.fails(*command[:-1], "--vqa", "mplug:out_detail.txt", "-o", "x.jsonl")
    single = ("eval", "dpg", "images.jsonl", "--questions", "table.csv", "--vqa", "mplug:", "-o", "x.jsonl")
    assert "the VQA mplug: names no file" in sanactl.fails(*single, code=2)
