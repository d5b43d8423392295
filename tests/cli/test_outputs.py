"""Files that a command owes: refused before any work, written whatever becomes of stdout, never lost to a neighbour."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from sanactl.cli.frame.run import Invocation
from sanactl.errors import OutputExistsError, SanactlError
from tests.fork_server import python_command
from tests.program import Program

SANACTL = f"{sys.executable} -m sanactl"
SINKS = {"head": "| head -1", "full": ">/dev/full", "closed": ">&-"}
COMMANDS = {
    "judge": "judge r.jsonl --model oracle --all",
    "eval": "eval geneval r.jsonl",
    "filter": "filter r.jsonl --per-prompt 1",
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with twelve pictures and their records, more than a pipe's reader takes."""
    monkeypatch.chdir(tmp_path)
    lines = []
    for i in range(12):
        Image.new("RGB", (64, 64), (20 * i, 0, 0)).save(f"{i}.png")
        include = [{"class": "circle", "count": 1}]
        record = {"kind": "image", "path": f"{i}.png", "prompt": f"p{i}", "prompt_id": f"p{i}", "samples": 1}
        lines.append(json.dumps({**record, "tag": "single_object", "include": include, "fill": "x" * 20_000}))
    Path("r.jsonl").write_text("\n".join(lines))
    return tmp_path


def shell(command: str) -> tuple[int, list[str]]:
    """The exit code of the first command of a pipe, and the lines on its stderr that are no progress."""
    done = subprocess.run(
        ["bash", "-c", f"{command}; echo ${{PIPESTATUS[0]}} >code"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if "stdout" in line]
    return int(Path("code").read_text()), lines


@pytest.mark.parametrize("sink", SINKS)
@pytest.mark.parametrize("command", COMMANDS)
def test_the_file_is_written_whatever_becomes_of_stdout(place: Path, command: str, sink: str) -> None:
    program = SANACTL if sink == "closed" else shlex.join([*python_command(), "-m", "sanactl"])
    code, lines = shell(f"{program} {COMMANDS[command]} -o out.jsonl {SINKS[sink]}")
    images = [r for r in map(json.loads, (place / "out.jsonl").open()) if r["kind"] == "image"]
    assert [r["path"] for r in images] == [f"{i}.png" for i in range(12)]
    entry = json.loads((place / ".sanactl/journal.jsonl").read_text())
    assert entry["outputs"][0]["path"] == "out.jsonl"
    assert (code, len(lines)) == ((0, 0) if sink == "head" else (1, 1))
    assert not [name for name in os.listdir() if name.startswith(".out")]


def test_nothing_is_owed_where_nobody_named_a_file(place: Path) -> None:
    shell(f'yes "$(head -1 r.jsonl)" | {SANACTL} filter --where \'prompt == "p0"\' | head -1')
    assert sorted(p.name for p in place.glob("*filter*")) == []


@pytest.mark.parametrize("command", COMMANDS)
def test_outputs_are_refused_before_any_work(place: Path, command: str, sanactl: Program) -> None:
    (place / "folder").mkdir()
    os.mkfifo(place / "fifo")
    # Records that cannot be read: whoever begins to work on them fails otherwise.
    run = [*COMMANDS[command].replace("r.jsonl", "gone.jsonl").split(), "-o"]
    assert "mkdir -p nowhere" in sanactl.fails(*run, "nowhere/x.jsonl")
    assert "not a folder" in sanactl.fails(*run, "r.jsonl/x.jsonl")
    assert "too long" in sanactl.fails(*run, "x" * 300 + ".jsonl")
    assert "already exists" in sanactl.fails(*run, "r.jsonl", code=2)
    assert "folder is a folder" in sanactl.fails(*run, "folder", "--force", code=2)
    assert "not a regular file" in sanactl.fails(*run, "/dev/null", "--force", code=2)
    assert "not a regular file" in sanactl.fails(*run, "fifo", "--force", code=2)
    assert "not a checkpoint" in sanactl.fails(*run, "x.st", code=2)
    assert "not a picture" in sanactl.fails(*run, "x.PNG", code=2)
    assert "stdout" in sanactl.fails(*run, "-", code=2)
    assert "gone.jsonl" in sanactl.fails(*run, "x.jsonl")


@pytest.mark.parametrize("command", ["sample", "encode", "train-judge"])
def test_folders_are_refused_before_any_work(place: Path, command: str, sanactl: Program) -> None:
    (place / "file").write_text("")
    run = [command, "gone.st", "-o"]
    assert "file is a file" in sanactl.fails(*run, "file", code=2)
    assert "a folder is written, not records" in sanactl.fails(*run, "x.jsonl", code=2)
    assert "not a folder" in sanactl.fails(*run, "file/x")
    assert "gone.st" in sanactl.fails(*run, "x")


def test_a_page_is_refused_before_any_work(place: Path, sanactl: Program) -> None:
    assert "not a document" in sanactl.fails("report", "gone.jsonl", "-o", "x.pdf", code=2)
    assert "not records" in sanactl.fails("report", "gone.jsonl", "-o", "r.jsonl", "--force", code=2)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(place: Path, sanactl: Program) -> None:
    (place / "locked").mkdir(mode=0o500)
    assert "no permission" in sanactl.fails("judge", "gone.jsonl", "-o", "locked/x.jsonl")


def records(count: int) -> list[dict]:
    return [{"kind": "image", "path": f"{i}.png", "prompt": "p"} for i in range(count)]


def test_two_runs_with_one_natural_name(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both have begun before either is done."""
    one, two, three = Invocation("judge"), Invocation("judge"), Invocation("judge")
    streams = []
    for run, count in ((one, 2), (two, 3), (three, 4)):
        target = run.records_file(None, "judge", force=False)
        assert target == Path("judge.jsonl")
        stream = run.tee(records(count), target, force=False)
        next(stream)
        streams.append((run, target, stream))
    for run, target, stream in streams:
        assert list(stream)
        run.finish((target, "image"))
    names = ["judge.jsonl", "judge-2.jsonl", "judge-3.jsonl"]
    assert [len((place / name).read_text().splitlines()) for name in names] == [2, 3, 4]
    assert [r["outputs"][0]["path"] for r in one.journal.runs()] == names
    assert "judge-2.jsonl" in capsys.readouterr().err


def test_two_runs_with_one_given_name(place: Path) -> None:
    """The second fails, for its file is not where it was asked for; and nothing is lost."""
    one, two = Invocation("judge"), Invocation("judge")
    streams = [run.tee(records(3), Path("x.jsonl"), force=False) for run in (one, two)]
    for stream in streams:
        next(stream)
    for stream in streams:
        assert list(stream)
    one.finish((Path("x.jsonl"), "image"))
    with pytest.raises(OutputExistsError, match=r"x-2\.jsonl"):
        two.finish((Path("x.jsonl"), "image"))
    assert (place / "x-2.jsonl").read_text() == (place / "x.jsonl").read_text()
    assert [r["outputs"][0]["path"] for r in two.journal.runs()] == ["x.jsonl", "x-2.jsonl"]


def test_a_disk_that_is_full_below_the_file(place: Path) -> None:
    """A limit on file size stands for it."""
    done = subprocess.run(
        ["bash", "-c", f"trap '' XFSZ; ulimit -f 100; {SANACTL} {COMMANDS['filter']} -o out.jsonl"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        timeout=100,
    )
    assert done.returncode == 1
    assert len([line for line in done.stderr.splitlines() if "out.jsonl" in line]) == 1, done.stderr
    assert "unexpected" not in done.stderr
    assert not list(place.glob("*out*"))


def test_errors_of_stdout_come_last(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Invocation("judge")
    full = open("/dev/full", "w")
    with full, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", full)
        run.emit(run.tee(records(5), Path("x.jsonl"), force=False), take_all=True)
        with pytest.raises(SanactlError, match="no space"):
            run.finish((Path("x.jsonl"), "image"))
    assert len((place / "x.jsonl").read_text().splitlines()) == 5
