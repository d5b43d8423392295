"""The folder's memory: what it finds again, and that nothing wrong with it stops a command."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

from sanactl.io.journal import Journal, Run, run_key


def made(folder: Path, name: str, kind: str = "checkpoint", key: str | None = None) -> Run:
    (folder / name).write_text(name)
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
