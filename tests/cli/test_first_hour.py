"""What a new user types first, and what comes back."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

import pytest

from tests.fork_server import python_command
from tests.program import Program, on_terminal

FEW = ("-n", "1", "--steps", "1")


def test_a_prompt_on_the_command_line(place: Path, sanactl: Program) -> None:
    drawn = sanactl("sample", "tiny.st", "--prompt", "a red circle", "--prompt", "a star", *FEW)
    assert [record["prompt"] for record in drawn] == ["a red circle", "a star"]


def test_a_lone_argument_with_spaces_is_a_prompt(place: Path, sanactl: Program) -> None:
    sanactl("grow", "tiny.st", "--to", "4", "--init", "cyclic", "-o", "four.st")
    drawn = sanactl("sample", "a red circle", *FEW)
    assert [(record["prompt"], record["checkpoint"]) for record in drawn] == [("a red circle", "four.st")]
    assert "'a red circle' as a prompt" in sanactl.said


def test_a_file_with_a_space_in_its_name_is_a_file(place: Path, sanactl: Program) -> None:
    Path("tiny.st").rename("my tiny.st")
    assert sanactl("sample", "my tiny.st", "--prompt", "a star", *FEW)[0]["checkpoint"] == "my tiny.st"


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--prompt", "x", "--prompts", "p.txt"), "exclude each other"),
        (("--prompt", "  "), "--prompt is empty"),
    ],
)
def test_prompts_that_do_not_go_together(
    place: Path, sanactl: Program, options: tuple[str, ...], line: str
) -> None:
    assert line in sanactl.fails("sample", "tiny.st", *options, code=2)


def test_comments_and_texts_in_prompt_files(place: Path, sanactl: Program) -> None:
    Path("p.txt").write_text("# my prompts\n\na star\n  # another\n#1 of all circles\n")
    Path("p.jsonl").write_text(
        '# from elsewhere\n{"text": "a star", "tag": "x"}\n# and\n{"prompt": "a circle"}\n'
    )
    texts = [
        [record["prompt"] for record in sanactl("sample", "tiny.st", "--prompts", name, *FEW)]
        for name in ("p.txt", "p.jsonl")
    ]
    assert texts == [["a star", "#1 of all circles"], ["a star", "a circle"]]


def test_a_second_judge_takes_the_samples(place: Path, sanactl: Program) -> None:
    sanactl("sample", "tiny.st", "--limit", "2", "-n", "3", "--steps", "1")
    assert len(sanactl("judge", "--model", "oracle")) == 2
    assert len(sanactl("judge", "--model", "oracle", "--all")) == 6
    assert "unjudged" in sanactl.said


def test_every_command_ends_with_what_it_wrote(place: Path, sanactl: Program) -> None:
    sanactl("importance", "tiny.st", "--prompt", "a star", "--steps", "1")
    assert "wrote tiny.importance.jsonl (3 blocks) - next: sanactl prune --keep 2" in sanactl.said
    sanactl("prune", "--keep", "2")
    assert "wrote tiny-d2.st" in sanactl.said
    assert "next: sanactl finetune tiny-d2.st --data FOLDER --steps 100" in sanactl.said
    sanactl("prune", "tiny.st", "--blocks", "0,1", "-o", "again.st")
    sanactl("prune", "tiny.st", "--blocks", "0,1", "-o", "again.st")
    assert "wrote" not in sanactl.said


def test_a_contact_sheet(place: Path, sanactl: Program) -> None:
    from PIL import Image

    sanactl("sample", "tiny.st", "--limit", "2", "-n", "3", "--steps", "1", "--sheet", "sheet.png")
    with Image.open("sheet.png") as sheet:
        assert sheet.width > 3 * 128
        assert sheet.height > 2 * 128
    assert ".png, .jpg or .webp" in sanactl.fails(
        "judge", "--model", "oracle", "--sheet", "sheet.gif", code=2
    )
    assert "exists" in sanactl.fails("judge", "--model", "oracle", "--sheet", "sheet.png", code=2)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("init", "foo"), "foo is neither a built-in checkpoint nor a file here"),
        (("convert",), "no checkpoint: name a file, a folder or a Hub id"),
        (("eval", "geneval"), "sanactl sample | sanactl eval geneval"),
        (("train-judge",), "sanactl sample | sanactl eval geneval | sanactl train-judge"),
    ],
)
def test_lines_that_lead_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sanactl: Program, arguments: tuple[str, ...], line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert line in sanactl.fails(*arguments, code=2)
    assert not list(tmp_path.glob("*.st"))


def test_a_pipe_on_a_terminal_leaves_its_result_and_messages(place: Path) -> None:
    """Three commands share one terminal: their lines never fold, and none is left behind."""
    pyte = pytest.importorskip("pyte")
    program = shlex.join([*python_command(), "-m", "sanactl"])
    pipe = f"{program} sample tiny.st --prompts shapes --limit 4 -n 4 --steps 2 | {program} judge --model oracle --all"
    code, shown = on_terminal(
        ["-c", f"{pipe} | {program} eval geneval"], place, program=["bash"], LINES="40", COLUMNS="100"
    )
    assert code == 0
    screen = pyte.HistoryScreen(100, 40, history=1000)
    pyte.Stream(screen).feed(shown)
    lines = [line.rstrip() for line in screen.display if line.strip()]
    assert any(line.startswith(" overall") or line.startswith("overall") for line in lines)
    assert not [line for line in lines if "sampling " in line or "scoring images " in line]
    assert "sample  " in shown  # there were lines on the way


def test_the_board_copes_with_what_it_finds(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from sanactl.cli.frame.board import Board

    path = tmp_path / "board"
    dead = {"rows": 2, "lines": {"999999999": ["sample", "sampling 1/2"]}, "closed": False}
    for content in ("", "[1", '{"rows": "x", "lines": {"a": 1}}', json.dumps(dead)):
        path.write_text(content)
        board = Board("judge", path)
        board.show("judging 3")
        assert list(json.loads(path.read_text())["lines"]) == [str(os.getpid())]
        board.leave()
        assert not path.exists()
    assert "judge  judging 3" in capfd.readouterr().err
    path.mkdir()
    Board("judge", path).above("a message")
    assert capfd.readouterr().err == "a message\n"


def test_the_built_in_judge_refuses_prompts_of_other_worlds(place: Path, sanactl: Program) -> None:
    sanactl("sample", "tiny.st", "--prompt", "a photo of a bench", *FEW)
    said = sanactl.fails("judge")
    assert "knows the built-in world alone, and not 'bench'" in said
    assert "--model" in said
    assert len(sanactl("sample", "tiny.st", "--prompt", "A photo of a red circle.", *FEW, "-o", "known")) == 1
    assert sanactl("judge", "known/images.jsonl")[0]["rank"] == 0


def test_tables_leave_out_empty_columns_and_repeat_a_head_that_has_gone(place: Path) -> None:
    code, shown = on_terminal(
        ["sample", "tiny.st", "--prompts", "shapes", "--limit", "12", "-n", "1", "--steps", "1"],
        place,
        program=[*python_command(), "-m", "sanactl"],
        LINES="10",
    )
    assert code == 0
    assert "verdict" not in shown
    assert shown.count("prompt") >= 2  # above and below


def test_the_oracle_refuses_objects_that_it_does_not_know(place: Path, sanactl: Program) -> None:
    bench = '{"tag": "single_object", "include": [{"class": "bench", "count": 1}], "prompt": "a photo of a bench"}\n'
    sanactl("sample", "tiny.st", "-p", "-", *FEW, stdin=bench)
    assert "knows no 'bench'" in sanactl.fails("judge", "--model", "oracle")


def test_the_newest_unjudged_images_are_unjudged(place: Path, sanactl: Program) -> None:
    """What is filtered from a judge's winners is theirs, too."""
    sanactl("sample", "tiny.st", "--limit", "2", "-n", "2", "--steps", "1")
    sanactl("judge", "--model", "shapes")
    sanactl("filter", "judge.jsonl", "--per-prompt", "1")
    assert len(sanactl("judge", "--model", "oracle", "--all")) == 4
    assert "tiny-samples/images.jsonl, the newest unjudged" in sanactl.said


def test_a_folder_of_samples_knows_where_its_images_came_from(place: Path, sanactl: Program) -> None:
    drawn = sanactl("sample", "tiny.st", "--limit", "2", "-n", "2", "--steps", "1", "-o", "out")
    Path("out").rename("moved")
    judged = sanactl("judge", "moved", "--model", "oracle", "--all")
    assert {r["digest"] for r in judged} == {drawn[0]["digest"]}
    assert sorted(r["seed"] for r in judged) == sorted(r["seed"] for r in drawn)
    assert all(Path(r["path"]).is_file() for r in judged)


def test_the_next_step_is_one_that_can_be_made(place: Path, sanactl: Program) -> None:
    sanactl("sample", "tiny.st", "--prompt", "a red circle", *FEW)
    sanactl("judge")
    assert "wrote judge.jsonl (1 image)" in sanactl.said
    assert "eval geneval" not in sanactl.said


def test_options_of_prune_that_exclude_each_other(place: Path, sanactl: Program) -> None:
    line = sanactl.fails("prune", "tiny.st", "--keep", "2", "--blocks", "0,1", code=2)
    assert "--keep and --blocks exclude each other" in line


def test_a_conversion_keeps_the_identity_of_the_base(place: Path, sanactl: Program) -> None:
    sanactl("init", "shapes", "-o", "base.st")
    (made,) = sanactl("convert", "base.st", "-o", "copy.st")
    (base,) = sanactl("inspect", "base.st")
    assert made["digest"] == base["digest"]
