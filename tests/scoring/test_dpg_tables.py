"""Tables of questions: what is read, and what is one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from sanactl.scoring.metrics.dpg import Dpg
from sanactl.scoring.questions.dpg_file import COLUMNS
from tests.program import Program
from tests.scoring.answerers import Coins
from tests.scoring.dpg_tables import Row, draw, row, write_table

GOOD = [row("a", 1, "0", "entity - whole", "Is it?"), row("a", 2, "1", "entity - part", "Is it so?")]


def changed(**cells: str) -> list[Row]:
    return [GOOD[0], {**GOOD[1], **cells}]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (changed(dependency="7"), "line 3: depends on question 7, which a does not have"),
        (changed(dependency="2"), "line 3: questions of a depend on each other in a circle (2 -> 2)"),
        (
            [{**GOOD[0], "dependency": "2"}, GOOD[1]],
            "questions of a depend on each other in a circle",
        ),
        (changed(dependency=""), "line 3: dependency is ''; it takes whole numbers, 0 for no parent"),
        (changed(dependency="1;2"), "line 3: dependency is '1;2'"),
        (changed(dependency="-1"), "line 3: dependency is '-1'"),
        (changed(proposition_id="0"), "line 3: proposition_id is 0; numbers begin with 1"),
        (changed(proposition_id="nan"), "line 3: proposition_id is 'nan'; it takes whole numbers"),
        (changed(proposition_id="9" * 40), "line 3: proposition_id is '999"),
        (changed(proposition_id="1"), "line 3: a has a question 1 already, another one; give each question"),
        (changed(item_id=" "), "line 3: no item_id"),
        (changed(question_natural_language=""), "line 3: no question_natural_language"),
        ([], "table.csv: holds no questions"),
    ],
)
def test_a_bad_table_is_one_line(coins: Coins, sanactl: Program, rows: list[Row], said: str) -> None:
    write_table(Path("table.csv"), rows)
    Path("images.jsonl").write_text('{"kind": "image", "path": "x.png", "prompt": "x", "item_id": "a"}\n')
    assert said in sanactl.fails("eval", "dpg", "images.jsonl", "--questions", "table.csv", "--vqa", "coins")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"item_id,text\na,b\n", "has no column proposition_id, dependency, category_broad"),
        (b"", "has no column item_id"),
        (b"\xff\xfei\0t\0", "not UTF-8 text (byte 0xff at 0)"),
        ((",".join(COLUMNS) + "\na,b,1,0,c,d,e\n").encode(), "line 2: 7 cells where the first line has 8"),
        ((",".join(COLUMNS) + '\na,"b,1,0,c,d,e,f\n').encode(), "no CSV (unexpected end of data)"),
        ((",".join(COLUMNS) + "\n" + "x" * 200_000).encode(), "no CSV (field larger than field limit"),
    ],
)
def test_what_is_no_table_is_one_line(coins: Coins, sanactl: Program, data: bytes, said: str) -> None:
    Path("table.csv").write_bytes(data)
    assert said in sanactl.fails("prompts", "dpg", "table.csv")


def test_a_byte_order_mark_several_parents_and_blank_lines_are_read(coins: Coins, sanactl: Program) -> None:
    rows = [*GOOD, row("a", 3, " 1, 2", "entity - part", 'Is it "so"?')]
    write_table(Path("table.csv"), rows)
    Path("table.csv").write_bytes(b"\xef\xbb\xbf" + Path("table.csv").read_bytes() + b"\r\n\r\n")
    metric = Dpg("table.csv", "coins")
    assert [q.parents for q in metric.items["a"].values()] == [(0,), (1,), (1, 2)]
    assert sanactl("prompts", "dpg", "table.csv") == [
        {"kind": "prompt", "id": "a", "item_id": "a", "prompt": "a prompt"}
    ]


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    [
        (["--vqa", "shapes"], "--questions is needed: DPG-Bench's table", 2),
        (["--questions", "table.csv"], "--vqa is needed: what answers the questions", 2),
        (["--questions", "none.csv", "--vqa", "shapes"], "none.csv: no such table of questions", 1),
        (["--questions", ".", "--vqa", "shapes"], ".: is not a regular file", 1),
        (["--questions", "table.csv", "--vqa", "shapes", "--vqa-options", "x=1"], "shapes has no options", 2),
        (["--questions", "table.csv", "--vqa", "shapes", "--vqa-options", "x"], "'x' is not KEY=VALUE", 2),
        (["--questions", "table.csv", "--vqa", "shapes", "--protocol", "mine"], "mine", 2),
        (["--questions", "table.csv", "--vqa", "shapes", "--resolution", "99999"], "resolution is 99,999", 2),
        (["--questions", "table.csv", "--vqa", "shapes", "--answers", ""], "--answers is empty", 2),
        (["--questions", "table.csv", "--vqa", "./nowhere"], "./nowhere: no such folder; --vqa takes", 1),
        (
            ["--questions", "table.csv", "--vqa", "shapes"],
            "question 'Is it?': the built-in world's VQA does",
            1,
        ),
    ],
)
def test_a_wrong_option_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sanactl: Program,
    arguments: list[str],
    said: str,
    code: int,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_table(Path("table.csv"), GOOD)
    draw(Path("x.png"), ("circle", "red", 0.5, 0.5))
    Path("images.jsonl").write_text('{"kind": "image", "path": "x.png", "prompt": "x", "item_id": "a"}\n')
    assert sanactl("eval", "dpg", "images.jsonl", *arguments, code=code) == []
    assert said in sanactl.said.splitlines()[-1]
