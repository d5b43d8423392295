"""File names that are not UTF-8, that begin with ~, that hold anything a file system takes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sanactl.checkpoint.open import open_checkpoint
from sanactl.files.paths import from_json, to_json, user_path
from sanactl.records.records import load_records
from tests.program import Program

CAFE = os.fsdecode(b"caf\xe9")

# A loaded machine is no fault.
CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@CALM
@given(st.binary(min_size=1).filter(lambda raw: b"\0" not in raw))
def test_every_name_has_a_spelling_in_json(raw: bytes) -> None:
    name = os.fsdecode(raw)
    text = to_json(name)
    text.encode("utf-8")
    if not name.startswith("file:"):
        assert os.fsencode(from_json(text)) == raw
    assert text == name or text.startswith("file:")


def test_spellings_are_uris() -> None:
    assert to_json(CAFE) == "file:caf%E9"
    assert to_json(f"/a b/{CAFE}/ü") == "file:///a%20b/caf%E9/%C3%BC"
    assert to_json("/a b/ü") == "/a b/ü"
    assert to_json({"path": [CAFE], "n": 1}) == {"path": ["file:caf%E9"], "n": 1}
    assert from_json("file:///a%20b/c") == from_json("file://localhost/a%20b/c") == "/a b/c"


def test_a_name_comes_before_what_it_could_mean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    assert user_path("~/x.st") == Path("/home/me/x.st")
    assert user_path("~nobody-here/x.st") == Path("~nobody-here/x.st")
    assert user_path("file:x") == Path("x")
    for name in ("~", "file:x"):
        Path(name).touch()
    assert user_path("~/x.st") == Path("~/x.st")
    assert user_path("file:x") == Path("file:x")


def test_the_whole_pipeline_with_names_that_are_not_utf8(
    place: Path, sanactl: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folder, checkpoints, prompts, records: done is exit code 0, the journal's line is there, and every line is JSON."""
    folder = place / CAFE
    folder.mkdir()
    shutil.copy("tiny.st", folder / f"{CAFE}.st")
    monkeypatch.chdir(folder)
    asked = {
        "tag": "colors",
        "include": [{"class": "circle", "count": 1, "color": "red"}],
        "prompt": "a photo of a red circle",
    }
    Path(f"p{CAFE}.txt").write_text(json.dumps(asked) + "\n")
    source = f"{CAFE}.st"
    sanactl("init", "shapes", "-o", f"b{CAFE}.st")
    (seen,) = sanactl("inspect", source)
    assert from_json(seen["path"]) == source
    (grown,) = sanactl("grow", source, "--to", "5")
    assert grown["path"] == "file:caf%E9-d5.st"
    (pruned,) = sanactl("prune", "--blocks", "0-2", stdin=json.dumps(grown))
    assert open_checkpoint(pruned["path"]).lineage[-1]["parents"][0]["name"] == "file:caf%E9-d5"
    sanactl("convert", source, "-o", f"{CAFE}.pth")
    sanactl("convert", source, "-o", f"pipe{CAFE}", "--pipeline", "--copy")
    sanactl("inspect", f"pipe{CAFE}")
    sanactl("grow", f"{CAFE}.pth", "--to", "4", "-o", f"n{CAFE}.st")
    few = ("--prompts", f"p{CAFE}.txt", "--steps", "1")
    blocks = sanactl("importance", source, *few)
    assert from_json(blocks[0]["checkpoint"]) == source
    sanactl("prune", source, "--keep", "2", "-o", f"k{CAFE}.st")
    images = sanactl("sample", f"pipe{CAFE}", *few, "-n", "2", "-o", f"drawn{CAFE}")
    assert all(Path(from_json(record["path"])).exists() for record in images)
    listing = Path(f"drawn{CAFE}/images.jsonl")
    assert len(load_records(listing)) == 2
    winners = sanactl("judge", listing, "--model", "oracle", "-o", f"w{CAFE}.jsonl")
    assert sanactl("filter", f"w{CAFE}.jsonl", "--top", "1") == winners
    sanactl("finetune", source, "--data", listing, "--steps", "1", "-b", "1", "-o", f"t{CAFE}.st")
    sanactl("encode", source, "--data", listing, "-o", f"latents{CAFE}")
    sanactl("finetune", source, "--data", f"latents{CAFE}", "--steps", "1", "-b", "1", "-o", f"u{CAFE}.st")
    sanactl("report", "-o", f"r{CAFE}.html")
    assert "caf" in Path(f"r{CAFE}.html").read_text(encoding="utf-8")
    journal = [json.loads(line) for line in Path(".sanactl/journal.jsonl").read_bytes().splitlines()]
    made = [run["command"] for run in journal]
    assert made == [
        "init", "grow", "prune", "convert", "convert", "grow", "importance", "prune", "sample", "judge", "filter", "finetune",
        "encode", "finetune", "report",
    ]  # fmt: skip
    sanactl("finetune", source, "--data", f"latents{CAFE}", "--steps", "1", "-b", "1", "-o", f"u{CAFE}.st")
    assert "already" in sanactl.said
    done = subprocess.run(
        [sys.executable, "-m", "sanactl", "log"], capture_output=True, text=True, check=True
    )
    assert r"caf\xe9-d5.st" in done.stdout
    assert "(gone)" not in done.stdout


def test_a_folder_that_is_not_utf8(place: Path, sanactl: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = place / CAFE
    folder.mkdir()
    monkeypatch.chdir(folder)
    (made,) = sanactl("prune", place / "tiny.st", "--blocks", "0", "-o", folder / "c.st")
    assert from_json(made["path"]) == str(folder / "c.st")
    sanactl("inspect")
    assert "using c.st" in sanactl.said or CAFE in sanactl.said


@pytest.mark.parametrize(
    "name",
    ["~old.st", "~nobody-here.st", "a\nb.st", "[bold].st", " .st", "-x.st", "{}%s%20.st", "é" * 90 + ".st"],
)
def test_any_name_will_do(place: Path, sanactl: Program, name: str) -> None:
    path = f"./{name}"
    (made,) = sanactl("grow", "tiny.st", "--to", "4", "-o", path)
    assert Path(made["path"]).exists()
    (again,) = sanactl("inspect", path)
    assert again["digest"] == made["digest"]
    sanactl("prune", path, "--blocks", "0", "-o", "out.st")
    sanactl("grow", path, "--to", "5", "-o", "~root-of-none/x.st", code=1)
    assert "~root-of-none does not exist" in sanactl.said


@pytest.mark.parametrize(
    ("code", "arguments"),
    [(1, ["inspect", "some/model"]), (0, ["sample", "tiny.st", "-n", "1", "--steps", "1"])],
)
def test_a_user_without_a_name_and_a_home(place: Path, code: int, arguments: list[str]) -> None:
    """As in a container that runs under a number of its own."""
    unnamed = ["unshare", "--user", "--map-user=54321"]
    if shutil.which("unshare") is None or subprocess.run([*unnamed, "true"], capture_output=True).returncode:
        pytest.skip("this system gives no user namespaces")
    (place / "scratch").mkdir()
    known = {k: v for k, v in os.environ.items() if k not in ("HOME", "USER", "LOGNAME", "XDG_CACHE_HOME")}
    done = subprocess.run(
        [*unnamed, sys.executable, "-m", "sanactl", *arguments],
        cwd=place,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={**known, "HF_HUB_OFFLINE": "1", "TMPDIR": str(place / "scratch"), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == code, done.stderr
    assert "unexpected" not in done.stderr
    assert "Traceback" not in done.stderr
    assert not (place / "~").exists()
