"""A stopped export goes on to the same bytes; two runs never write one folder; nothing of others is replaced."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import sanactl as api
from sanactl.exporting.formats.registry import EXPORTS
from sanactl.exporting.plan import ExportPlan
from sanactl.exporting.rows import Row, look_at
from sanactl.files.folder_lock import FolderLock
from tests.exporting.records import write_records
from tests.pictures import spoil
from tests.program import Program, snapshot

# Each format's export in a process of its own, which kills itself while it writes the third shard.
KILLED = """
import os, signal, sys
from pathlib import Path
from sanactl.cli.app import main
from sanactl.exporting.formats.registry import EXPORTS
from sanactl.exporting.plan import ExportPlan

whole = ExportPlan.rows

def rows(self, shard=None):
    for row in whole(self, shard):
        yield row
        if shard is not None and shard.number == 2:
            os.kill(os.getpid(), signal.SIGKILL)

ExportPlan.rows = rows
for to in EXPORTS:
    child = os.fork()
    if not child:
        main(["export", "records.jsonl", "--to", to, "-o", f"stopped/{to}", "--shard-size", "2"])
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.fixture
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    monkeypatch.chdir(tmp_path)
    return write_records(tmp_path)


def test_a_killed_export_goes_on_to_the_same_bytes(
    sanactl: Program, records: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("stopped").mkdir()
    Path("whole").mkdir()
    code = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, text=True, check=True).stdout
    assert [int(line) for line in code.split()[-len(EXPORTS) :]] == [-9] * len(EXPORTS)
    written: list[int] = []
    seen: list[Path] = []
    monkeypatch.setattr(
        "sanactl.exporting.planning.look_at", seen.append
    )  # what is known is not looked at again
    rows = ExportPlan.rows

    def watched(self: Any, shard: Any = None) -> Any:
        written.extend([] if shard is None else [shard.number])
        return rows(self, shard)

    for to in EXPORTS:
        target = Path("stopped", to)
        index = json.loads((target / "export.json").read_text())
        assert index["complete"] is False and Path(f"stopped/.{to}.export").is_dir()
        before = {
            p: p.stat().st_mtime_ns for p in target.rglob("*") if "0000" in p.name and p.suffix != ".tmp"
        }
        assert before
        written.clear()
        with monkeypatch.context() as patch:
            patch.setattr("sanactl.exporting.plan.ExportPlan.rows", watched)
            sanactl("export", "records.jsonl", "--to", to, "-o", target, "--shard-size", "2")
        if to in ("parquet", "hf-dataset", "webdataset"):  # others read rows for their index, too
            assert written == [2, 3], to
        assert all(p.stat().st_mtime_ns == before[p] for p in before if p.is_file() and p.suffix != ".json")
    assert not seen
    monkeypatch.setattr("sanactl.exporting.planning.look_at", look_at)
    monkeypatch.chdir("whole")
    for to in EXPORTS:
        sanactl("export", "../records.jsonl", "--to", to, "-o", to, "--shard-size", "2")
        assert snapshot(Path(to)) == snapshot(Path("../stopped", to))
    assert not [p for p in Path("..").rglob(".*") if p.name.endswith((".tmp", ".export"))]


def test_the_same_export_again_changes_nothing(sanactl: Program, records: list[dict[str, Any]]) -> None:
    sanactl("export", "records.jsonl", "-o", "set")
    Path("set/README.md").write_text("my own words\n")
    before = snapshot(Path("set"))
    assert sanactl("export", "records.jsonl", "-o", "set") == records
    assert "set is there already" in sanactl.said
    assert snapshot(Path("set")) == before
    shutil.rmtree("set/images/00000")  # what is missing is written again, and the card stays
    sanactl("export", "records.jsonl", "-o", "set")
    assert snapshot(Path("set")) == before


def test_other_records_are_refused_and_force_replaces(
    sanactl: Program, records: list[dict[str, Any]]
) -> None:
    sanactl("export", "records.jsonl", "-o", "set", "--shard-size", "2")
    fewer = "".join(json.dumps(r) + "\n" for r in records[:3])
    said = sanactl.fails("export", "-", "-o", "set", stdin=fewer, code=2)
    assert "other records or with other settings" in said and "--force" in said
    sanactl("export", "-", "-o", "set", "--to", "webdataset", "--force", stdin=fewer)
    names = {p.relative_to("set").as_posix() for p in Path("set").rglob("*")}
    assert names == {"00000.tar", "README.md", "export.json"}
    Path("set/notes.txt").write_text("mine")
    said = sanactl.fails("export", "records.jsonl", "-o", "set", code=2)
    assert "other records" in said
    sanactl("export", "records.jsonl", "-o", "set", "--force", code=2)
    assert "notes.txt" in sanactl.said and Path("set/notes.txt").read_text() == "mine"


def test_a_folder_of_others_is_not_written(sanactl: Program, records: list[dict[str, Any]]) -> None:
    Path("mine").mkdir()
    Path("mine/a.txt").write_text("mine")
    for force in ([], ["--force"]):
        assert "is no export" in sanactl.fails("export", "records.jsonl", "-o", "mine", *force, code=2)
    # An index that names files elsewhere removes none of them.
    Path("mine/a.txt").unlink()
    index = {"format": "sanactl-export-1", "key": "x", "files": ["../records.jsonl", "/etc/hostname", "."]}
    Path("mine/export.json").write_text(json.dumps(index))
    sanactl("export", "records.jsonl", "-o", "mine", "--force")
    assert Path("records.jsonl").exists() and Path("mine/metadata.jsonl").exists()


def test_one_run_at_a_time(sanactl: Program, records: list[dict[str, Any]]) -> None:
    with FolderLock(Path("set"), Path(".set.export")):
        said = sanactl.fails("export", "records.jsonl", "-o", "set")
    assert "another run is making it right now" in said
    sanactl("export", "records.jsonl", "-o", "set")


def test_a_run_that_has_just_begun_is_no_folder_of_others(
    sanactl: Program, records: list[dict[str, Any]]
) -> None:
    """The other run has made the folder, and its first index has not got its name."""
    with FolderLock(Path("set"), Path(".set.export")):
        Path("set").mkdir()
        Path("set/half").touch()
        said = sanactl.fails("export", "records.jsonl", "-o", "set", code=1)
    assert "another run is making it right now" in said
    assert "is no export" in sanactl.fails("export", "records.jsonl", "-o", "set", code=2)
    assert not Path(".set.export").exists()
    Path("set/half").unlink()
    sanactl("export", "records.jsonl", "-o", "set")


def test_an_image_that_changes_meanwhile_stops_the_run(
    sanactl: Program, records: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Row.read

    def spoiled(self: Row) -> bytes:
        if self.number == 4:
            spoil(self.path)
        return read(self)

    data = Path(records[4]["path"]).read_bytes()
    monkeypatch.setattr(Row, "read", spoiled)
    sanactl("export", "records.jsonl", "--to", "webdataset", "-o", "set", "--shard-size", "2", code=1)
    assert "has changed since" in sanactl.said
    assert [p.name for p in sorted(Path("set").iterdir())] == ["00000.tar", "00001.tar", "export.json"]
    monkeypatch.setattr(Row, "read", read)
    path = Path(records[4]["path"])
    path.write_bytes(data)  # its time is another now: that is another data set
    sanactl("export", "records.jsonl", "--to", "webdataset", "-o", "set", "--shard-size", "2", code=2)
    assert "other records" in sanactl.said


def test_ctrl_c_says_that_the_shards_are_kept(
    sanactl: Program, records: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Row.read

    def interrupted(self: Row) -> bytes:
        if self.number == 4:
            raise KeyboardInterrupt
        return read(self)

    monkeypatch.setattr(Row, "read", interrupted)
    command = ("export", "records.jsonl", "--to", "parquet", "-o", "set", "--shard-size", "2")
    sanactl(*command, code=130)
    assert "the shards so far are kept" in sanactl.said
    monkeypatch.setattr(Row, "read", read)
    assert [p.name[6:11] for p in sorted(Path("set/data").iterdir())] == ["00000", "00001"]
    assert sanactl(*command) == records


def test_a_full_disk_is_one_line(sanactl: Program, records: list[dict[str, Any]]) -> None:
    import resource
    import signal

    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (6000, limit[1]))
        sanactl("export", "records.jsonl", "--to", "webdataset", "-o", "set", "--shard-size", "3", code=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert "cannot write" in sanactl.said and len(sanactl.said.splitlines()) <= 2
    sanactl("export", "records.jsonl", "--to", "webdataset", "-o", "set", "--shard-size", "3")
    assert not list(Path().rglob("*.tmp"))


def test_the_function_writes_what_the_command_writes(sanactl: Program, records: list[dict[str, Any]]) -> None:
    os.makedirs("a")
    os.makedirs("b")
    sanactl("export", "records.jsonl", "--to", "sana", "-o", "a/set", "--shard-size", "2")
    made = api.export(records, to="sana", output="b/set", shard_size="2")
    assert snapshot(Path("a")) == snapshot(Path("b"))
    assert (made["images"], made["shards"], made["path"]) == (7, 4, "b/set")
    assert made["columns"]["judge_score"] == "float64"
