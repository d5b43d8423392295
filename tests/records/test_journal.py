"""The folder's memory: what it finds again, and that nothing wrong with it stops a command."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import resource
import signal
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from sanactl.files.append import try_lock
from sanactl.records.journal import Journal, Run, run_key


def made(folder: Path, name: str, kind: str = "checkpoint", key: str | None = None) -> Run:
    (folder / name).write_bytes(b"made")
    return Run("grow", [], "0", key=key, outputs=[{"path": str(folder / name), "kind": kind}])


def newest(journal: Journal, *kinds: str) -> Path:
    found = journal.newest(*kinds)
    assert found is not None
    return Path(found["path"])


def test_newest_of_a_kind_that_is_still_there(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    assert journal.newest("checkpoint") is None
    for name, kind in (("a.st", "checkpoint"), ("b.st", "checkpoint"), ("i.jsonl", "block")):
        journal.append(made(tmp_path, name, kind), 1.0)
    assert newest(journal, "checkpoint").name == "b.st"
    assert newest(journal, "checkpoint", "block").name == "i.jsonl"
    (tmp_path / "b.st").unlink()
    assert newest(journal, "checkpoint").name == "a.st"


def test_paths_are_relative_so_that_a_folder_can_be_moved(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    Journal(tmp_path / "old").append(made(tmp_path / "old", "a.st"), 1.0)
    moved = (tmp_path / "old").rename(tmp_path / "new")
    assert newest(Journal(moved), "checkpoint") == moved / "a.st"


def test_made_asks_for_the_newest_run(tmp_path: Path) -> None:
    journal, path = Journal(tmp_path), tmp_path / "a.st"
    first, second = run_key("grow", to=12), run_key("grow", to=14)
    assert first != second
    assert first == run_key("grow", to=12)
    journal.append(made(tmp_path, "a.st", key=first), 1.0)
    assert journal.made(path, first)
    journal.append(made(tmp_path, "a.st", key=second), 1.0)
    assert not journal.made(path, first)
    path.unlink()
    assert not journal.made(path, second)


def test_a_damaged_journal_is_read_as_far_as_it_can_be(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append(made(tmp_path, "a.st"), 1.0)
    with journal.path.open("ab") as file:
        file.write(b'{"half\n[1]\n\xff\xff\n{"outputs": ["x", {"kind": "checkpoint"}]}\n')
    journal.append(made(tmp_path, "b.st"), 1.0)
    assert newest(journal, "checkpoint").name == "b.st"
    assert not journal.made(tmp_path / "c.st", "key")


ENTRY = {"time": "t", "command": "grow", "outputs": [{"path": "a.st", "kind": "checkpoint", "digest": "d"}]}
WRONG: list[dict[str, Any]] = [
    {"outputs": [5]}, {"outputs": {}}, {"outputs": None}, {"outputs": [{"path": 5}]}, {"outputs": [{"kind": "image"}]},
    {"outputs": [{"path": "a\0b"}]}, {"outputs": [{"path": "a.st", "kind": ["checkpoint"]}]},
    {"outputs": [{"path": "a.st", "digest": 5}]}, {"inputs": "b.st"}, {"inputs": [["b.st"]]}, {"time": 5},
    {"command": ["grow"]}, {"argv": "grow"}, {"argv": [1]}, {"seconds": "1"}, {"seed": 1.5}, {"key": 5}, {"version": {}},
]  # fmt: skip


def test_entries_with_fields_of_other_types_are_passed_over(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.path.parent.mkdir()
    good = {**ENTRY, "inputs": [], "other": [1, {"a": None}]}
    lines = [json.dumps(good)]
    lines += [json.dumps({**ENTRY, **wrong}) for wrong in WRONG]
    lines += [
        "[" * 100_000,
        "9" * 5000,
        '{"outputs": [], "x": NaN}',
        '{"outputs": [], "x": 1e999}',
        "null",
        "",
        "\0\0",
    ]
    lines += [json.dumps({**ENTRY, "fill": "x" * 5_000_000}), json.dumps(good)]
    journal.path.write_text("\n".join(lines) + "\n")
    assert list(journal.runs()) == [good, good]
    assert list(journal.newest_first()) == [good, good]


def test_read_from_the_end_as_from_the_start(tmp_path: Path) -> None:
    """Lines of all lengths, over the borders of the blocks that are read at once."""
    journal = Journal(tmp_path)
    journal.path.parent.mkdir()
    rng = random.Random(0)
    with journal.path.open("w") as file:
        for number in range(100):
            fill = "é" * rng.choice([0, 7, 1000, 9000, 60_000])
            file.write(
                json.dumps({"outputs": [], "n": number, "fill": fill}, ensure_ascii=rng.random() < 0.5) + "\n"
            )
    forward = [run["n"] for run in journal.runs()]
    assert forward == list(range(100))
    assert [run["n"] for run in journal.newest_first()] == forward[::-1]


def test_looking_for_the_newest_reads_the_end_alone(tmp_path: Path) -> None:
    """A journal of 300 MB, most of it a hole in the file."""
    journal = Journal(tmp_path)
    journal.path.parent.mkdir()
    with journal.path.open("wb") as file:
        file.truncate(300_000_000)
    began = time.monotonic()
    journal.append(made(tmp_path, "a.st", key="k"), 1.0)
    tracemalloc.start()
    assert newest(journal, "checkpoint").name == "a.st"
    assert journal.made(tmp_path / "a.st", "k")
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("tear", ["half a line", "no end"])
def test_a_torn_line_swallows_nothing(tmp_path: Path, tear: str) -> None:
    journal = Journal(tmp_path)
    for name in ("a.st", "b.st"):
        journal.append(made(tmp_path, name), 1.0)
    size = journal.path.stat().st_size
    os.truncate(journal.path, size - (40 if tear == "half a line" else 1))
    for name in ("c.st", "d.st"):
        journal.append(made(tmp_path, name), 1.0)
    names = [run["outputs"][0]["path"] for run in journal.runs()]
    assert names == [*(["a.st"] if tear == "half a line" else ["a.st", "b.st"]), "c.st", "d.st"]


def test_a_full_disk_takes_the_line_back(tmp_path: Path) -> None:
    """A limit on file size stands for it, at every place within the line."""
    journal = Journal(tmp_path)
    journal.append(made(tmp_path, "a.st"), 1.0)
    size = journal.path.stat().st_size
    before, limit = journal.path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        for room in (0, 1, 50, size - 1):
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + room, limit[1]))
            other = Run("grow", [], "0", outputs=[{"path": "b.st", "kind": "checkpoint"}])
            assert journal.append(other, 1.0) == "file too large"
            assert journal.path.read_bytes() == before
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert journal.append(made(tmp_path, "c.st"), 1.0) == ""
    assert newest(journal, "checkpoint").name == "c.st"


@pytest.mark.parametrize("what", ["pipe", "folder", "zero"])
def test_a_journal_that_is_no_file_is_none(tmp_path: Path, what: str) -> None:
    journal = Journal(tmp_path)
    journal.path.parent.mkdir()
    if what == "pipe":
        os.mkfifo(journal.path)
    elif what == "folder":
        journal.path.mkdir()
    else:
        journal.path.symlink_to("/dev/zero")
    journal.append(made(tmp_path, "a.st"), 1.0)
    assert list(journal.runs()) == []
    assert journal.newest("checkpoint") is None


def test_a_process_that_holds_the_lock_for_ever_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sanactl.files.append.PATIENCE", 0.2)
    journal = Journal(tmp_path)
    journal.append(made(tmp_path, "a.st"), 1.0)
    with journal.path.open("rb") as held:
        assert try_lock(held.fileno())
        journal.append(made(tmp_path, "b.st"), 1.0)
    assert newest(journal, "checkpoint").name == "b.st"


def test_names_that_are_not_utf8_are_found_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    name = os.fsdecode(b"caf\xe9.st")
    journal.append(made(tmp_path, name), 1.0)
    assert newest(journal, "checkpoint") == tmp_path / name
    assert json.loads(journal.path.read_bytes().decode())["outputs"][0]["path"] == "file:caf%E9.st"


def test_a_journal_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / ".sanactl").write_text("in the way")
    Journal(tmp_path).append(made(tmp_path, "a.st"), 1.0)
    assert list(Journal(tmp_path).runs()) == []


def append_many(folder: str, who: int) -> None:
    for i in range(50):
        Journal(Path(folder)).append(Run("x" * 500, [str(who), str(i)], "0"), 0.0)


def test_processes_of_a_pipe_write_whole_lines(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=append_many, args=(str(tmp_path), who)) for who in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    lines = [json.loads(line) for line in (tmp_path / ".sanactl/journal.jsonl").read_text().splitlines()]
    assert sorted(tuple(line["argv"]) for line in lines) == sorted(
        (str(who), str(i)) for who in range(4) for i in range(50)
    )
