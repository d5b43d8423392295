"""The commands as they are typed, one after the other and as one pipe."""

from __future__ import annotations

import json
import os
import pty
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sanactl import __version__
from sanactl.checkpoint.builtin import asset
from sanactl.checkpoint.open import open_checkpoint
from sanactl.cli.app import COMMANDS, main
from tests.fork_server import python_command
from tests.program import Program, snapshot


def lines(records: list) -> str:
    return "".join(json.dumps(r) + "\n" for r in records)


def journal(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / ".sanactl/journal.jsonl").read_text().splitlines()]


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """A folder that holds base.st and calib.txt and has no journal."""
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(asset("base.st"), tmp_path / "base.st")
    (tmp_path / "calib.txt").write_text("".join(asset("calib.txt").read_text().splitlines(True)[:10]))
    return tmp_path


def test_four_lines_in_a_folder(empty: Path, sanactl: Program) -> None:
    """What the user types, but for sizes: each line finds by itself what the one before made."""
    (grown,) = sanactl("grow", "base.st", "--to", "12", "--init", "partial")
    assert (grown["path"], grown["blocks"]) == ("base-d12.st", 12)
    blocks = sanactl("importance", "--prompts", "calib.txt", "--steps", "2")
    assert "using base-d12.st" in sanactl.said
    assert len(blocks) == 12
    (pruned,) = sanactl("prune", "--keep", "6")
    assert "base-d12.importance.jsonl" in sanactl.said
    assert (pruned["path"], pruned["blocks"]) == ("base-d12-d6.st", 6)
    # The new blocks are still the identity, so they go.
    assert max(open_checkpoint(pruned["path"]).lineage[-1]["arguments"]["blocks"]) < 8
    images = sanactl("sample", "--steps", "2", "-n", "2")
    assert "using base-d12-d6.st" in sanactl.said
    winners = sanactl("judge", "--model", "oracle", stdin=lines(images))
    assert len(winners) == 6
    assert {w["rank"] for w in winners} == {0}
    assert all(Path(w["path"]).exists() for w in winners)
    assert [json.loads(x) for x in Path("judge.jsonl").read_text().splitlines()] == winners
    commands = [run["command"] for run in journal(empty)]
    assert commands == ["grow", "importance", "prune", "sample", "judge"]
    assert journal(empty)[-1]["inputs"][-1]["path"] == "base-d12-d6-samples/images.jsonl"
    assert main(["log"]) == 0


def test_one_pipe(empty: Path) -> None:
    """The whole paper in one line: every command reads what the one before writes, at the same time."""
    run = shlex.join([*python_command(), "-m", "sanactl"])
    shots = subprocess.run(
        [
            "bash",
            "-c",
            f"{run} prompts shapes --split train -n 4 | {run} sample base.st --steps 2 -n 1 -o shots",
        ],
        capture_output=True,
        text=True,
        check=True,
        stdin=subprocess.DEVNULL,
    )
    shots.check_returncode()
    (empty / "shots.jsonl").write_text(shots.stdout)
    command = f"""set -o pipefail
        {run} grow base.st --to 12 --init partial | {run} importance --prompts calib.txt --steps 2 |
        {run} prune --keep 6 | {run} finetune --data shots.jsonl --steps 2 -b 2 |
        {run} sample --prompts shapes --limit 6 -n 2 --steps 2 | {run} judge --model oracle --keep 1 |
        {run} eval geneval"""
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=280
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    *images, score = [json.loads(line) for line in done.stdout.splitlines()]
    assert [r["kind"] for r in images] == ["image"] * 6
    assert (score["kind"], score["images"]) == ("score", 6)
    assert all(r["checkpoint"] == "base-d12-d6-ft2.st" for r in images)
    lineage = [step["command"] for step in open_checkpoint("base-d12-d6-ft2.st").lineage]
    assert lineage[-3:] == ["grow", "prune", "finetune"]
    assert sorted(run["command"] for run in journal(empty)) == sorted(
        ["sample", "grow", "importance", "prune", "finetune", "sample", "judge", "eval geneval"]
    )


def test_a_script_can_be_run_again(place: Path, sanactl: Program) -> None:
    """What is there from the same inputs and settings is left as it is; another's is not touched."""
    script = [
        ("grow", "tiny.st", "--to", "5"),
        ("prune", "tiny-d5.st", "--blocks", "0,1,4"),
        ("convert", "tiny-d5.st", "--dtype", "bf16"),
        ("convert", "tiny-d5.st", "-o", "folder/"),
        ("convert", "tiny-d5.st", "-o", "tiny.pth"),
    ]
    first = [sanactl(*step) for step in script]
    before = snapshot(place)
    assert [sanactl(*step) for step in script] == first
    assert snapshot(place) == before
    assert "already exists" in sanactl.fails("grow", "tiny.st", "--to", "5", "--seed", "1", code=2)
    sanactl("grow", "tiny.st", "--to", "5", "--seed", "1", "--force")
    assert snapshot(place) != before


def test_several_depths_at_once(place: Path, sanactl: Program) -> None:
    sanactl(
        "importance",
        "tiny.st",
        "--prompts",
        "-",
        "--steps",
        "1",
        stdin="a star\n" and '{"prompt": "a star"}\n',
    )
    made = sanactl("prune", "tiny.st", "--keep", "2,1")
    assert [r["path"] for r in made] == ["tiny-d2.st", "tiny-d1.st"]
    (place / "tiny-d1.st").unlink()
    assert sanactl("prune", "tiny.st", "--keep", "2,1") == made
    assert "-o names one output" in sanactl.fails("prune", "tiny.st", "--keep", "2,1", "-o", "x.st", code=2)


def test_convert_there_and_back(place: Path, sanactl: Program) -> None:
    sanactl("convert", "tiny.st", "-o", "native.pth")
    sanactl("convert", "native.pth", "-o", "back.st")
    original = open_checkpoint("tiny.st")
    assert open_checkpoint("back.st").digest == original.digest
    sanactl("convert", "tiny.st", "-o", "folder/", "--shard-size", "200KB")
    assert len(list((place / "folder").glob("*.safetensors"))) > 2
    (record,) = sanactl("convert", "folder")
    assert record["path"] == "folder.st"
    assert (place / "folder.st").stat().st_size > 0
    assert "already" in sanactl.fails("convert", "tiny.st", code=2)
    assert "choose bf16" in sanactl.fails("convert", "tiny.st", "--dtype", "int4", code=2)
    sanactl("grow", "native.pth", "--to", "5", "-o", "grown.st")
    assert open_checkpoint("grown.st").num_blocks == 5


def test_inspect(place: Path, sanactl: Program) -> None:
    (record,) = sanactl("inspect", "tiny.st", "--tensors")
    assert record["blocks"] == record["config"]["num_layers"] == 3
    assert record["digest"] == open_checkpoint("tiny.st").digest
    assert record["tensors"]["proj_out.weight"]["shape"] == [8, 96]
    assert [step["command"] for step in record["lineage"]][-1] == "prune"
    (piped,) = sanactl("inspect", stdin=lines([{"kind": "checkpoint", "path": "tiny.st"}]))
    assert piped["digest"] == record["digest"]


def test_verify_tells_how_far_parent_and_child_are_apart(place: Path, sanactl: Program) -> None:
    (same,) = sanactl("grow", "tiny.st", "--to", "6", "--drop-last", "0", "--verify", "-o", "same.st")
    assert same["largest_difference"] == 0
    assert "agree exactly" in sanactl.said
    (other,) = sanactl("grow", "tiny.st", "--to", "6", "--verify", "-o", "other.st")
    assert other["largest_difference"] > 1e-3


def test_dry_run_writes_nothing(place: Path, sanactl: Program) -> None:
    before = snapshot(place)
    (plan,) = sanactl("grow", "tiny.st", "--to", "60", "--dry-run")
    assert (plan["planned"], plan["blocks_after"]) == (True, 60)
    assert plan["bytes_copied"] + plan["bytes_generated"] + plan["bytes_zero"] == plan["bytes_after"]
    assert snapshot(place) == before


def test_growth_options(place: Path, sanactl: Program) -> None:
    for init in ("cyclic", "replicate", "progressive", "interpolate"):
        sanactl("grow", "tiny.st", "--to", "6", "--init", init, "-o", f"{init}.st")
        assert open_checkpoint(f"{init}.st").lineage[-1]["arguments"]["init"] == init
    sanactl(
        "grow", "tiny.st", "--to", "5", "--position", "interleave", "--drop-last", "0", "-o", "between.st"
    )
    assert "--to" in sanactl.fails("grow", "tiny.st", code=2)
    assert "QK norms already" in sanactl.fails("grow", "tiny.st", "--qk-norm", code=2)


def test_pruning_by_size(place: Path, sanactl: Program) -> None:
    sanactl("importance", "tiny.st", "--prompts", "-", "--steps", "1", stdin="a star\n")
    (made,) = sanactl("prune", "tiny.st", "--params", "410K")
    assert made["blocks"] == 2
    (made,) = sanactl("prune", "tiny.st", "--bytes", "600KB", "-o", "small.st")
    assert (place / "small.st").stat().st_size <= 600_000
    (made,) = sanactl("prune", "tiny.st", "--drop", "-1", "-o", "dropped.st")
    assert made["blocks"] == 2
    assert "--keep and --drop exclude each other" in sanactl.fails(
        "prune", "tiny.st", "--keep", "2", "--drop", "0", code=2
    )


def test_prompts_through_a_pipe(place: Path, sanactl: Program) -> None:
    """Plain text, GenEval's metadata as it stands, and a checkpoint in the same stream."""
    metadata = '{"tag": "single_object", "include": [{"class": "star", "count": 1}], "prompt": "a photo of a star"}\n'
    few = ("-n", "1", "--steps", "1")
    (record,) = sanactl("sample", "tiny.st", "-p", "-", *few, "-o", "a", stdin="a star\n")
    assert record["prompt"] == "a star"
    for options in ([], ["-p", "-"]):
        (record,) = sanactl("sample", "tiny.st", *options, *few, "-o", "b", stdin=metadata)
        assert record["include"] == [{"class": "star", "count": 1}]
    both = lines([{"kind": "checkpoint", "path": "tiny.st"}]) + metadata
    for options in ([], ["-"], ["-", "-p", "-"]):
        (record,) = sanactl("sample", *options, *few, "-o", "b", stdin=both)
        assert record["prompt"] == "a photo of a star"
    assert "no prompts" in sanactl.fails("sample", "tiny.st", "-p", "-", stdin="")
    assert "line 2" in sanactl.fails("sample", "tiny.st", stdin=metadata + "{nonsense\n")
    assert "the command before may have failed" in sanactl.fails("sample", stdin="")


def test_prompts_of_the_built_in_world(place: Path, sanactl: Program) -> None:
    evaluation = sanactl("prompts", "shapes")
    assert len(evaluation) == 360
    training = sanactl("prompts", "shapes", "--split", "train", "-n", "30", "--tag", "counting")
    assert {r["tag"] for r in training} == {"counting"}
    assert not {r["prompt"] for r in training} & {r["prompt"] for r in evaluation}
    assert "choose one of" in sanactl.fails("prompts", "shapes", "--split", "exam", code=2)


def test_everything_in_a_folder_on_one_page(place: Path, sanactl: Program) -> None:
    images = sanactl("sample", "tiny.st", "-n", "1", "--steps", "1")
    sanactl("eval", "geneval", stdin=lines(images))
    sanactl("report", "-o", "report.html")
    assert "<html" in (place / "report.html").read_text()
    assert main(["log", "--json"]) == 0


def test_log_draws_what_was_made_from_what(
    place: Path, sanactl: Program, capsys: pytest.CaptureFixture[str]
) -> None:
    sanactl("grow", "tiny.st", "--to", "5")
    images = sanactl("sample", "--limit", "1", "-n", "1", "--steps", "1")
    sanactl("judge", "--model", "oracle", stdin=lines(images))
    capsys.readouterr()
    assert main(["log"]) == 0
    drawn = capsys.readouterr().out
    assert [line.strip("│├└─ ").split("  [")[0] for line in drawn.splitlines()] == [
        "tiny.st",
        "tiny-d5.st",
        "tiny-d5-samples/images.jsonl",
        "judge.jsonl",
    ]
    assert main(["log", "tiny-d5.st"]) == 0
    assert "grow" in capsys.readouterr().out


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"sanactl {__version__}\n"
    assert main(["-h"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in COMMANDS)
    assert main([]) == 2


def test_a_terminal_gets_a_table(place: Path) -> None:
    """On a terminal stdout is for people; elsewhere the same command writes JSON."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "sanactl", "inspect", "tiny.st"],
        stdout=follower,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "COLUMNS": "100", "TERM": "xterm"},
    )
    os.close(follower)
    shown = b""
    while True:
        try:
            part = os.read(leader, 65536)
        except OSError:
            break
        if not part:
            break
        shown += part
    assert process.wait(timeout=60) == 0
    os.close(leader)
    text = shown.decode()
    assert "parameters" in text
    assert "lineage" in text
    assert not text.lstrip().startswith("{")
