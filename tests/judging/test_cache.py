"""Verdicts that are kept: what decides about them, damage, two runs, bounds."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from sanactl.errors import InputError
from sanactl.files.images import write_png
from sanactl.judging import kept as module
from sanactl.judging.backends.oracle import OracleJudge
from sanactl.judging.cache import VerdictCache
from sanactl.judging.registry import JUDGES
from sanactl.judging.tournament import Verdict
from sanactl.records import kept_rows
from tests.program import Program


class Counting:
    """Says how grey an image is, and remembers what it was asked about."""

    name = "counting"
    reads: ClassVar = ("prompt",)
    asked: ClassVar[list[list[str]]] = []

    def __init__(self, rest: str = "", *, gain: float = 1.0) -> None:
        self.gain = gain
        self.identity = {"name": self.name, "gain": gain}

    def judge(self, images: Any, records: Any) -> list[Verdict]:
        self.asked.append([r["path"] for r in records])
        p = [
            self.gain * (int(i[0, 0, 0]) + len(r["prompt"])) / 512
            for i, r in zip(images, records, strict=True)
        ]
        return [Verdict.of(float(np.log(x)), float(np.log(1 - x))) for x in p]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six images of two prompts, and the judge `counting`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(JUDGES, "counting", Counting)
    Counting.asked.clear()
    write_records(range(6))
    return tmp_path


def write_records(numbers: Any, name: str = "r.jsonl", **more: Any) -> list[dict[str, Any]]:
    records = []
    for n in numbers:
        path = Path(f"{n}.png")
        if not path.exists():
            write_png(np.full((8, 8, 3), 10 * n + 5, np.uint8), path)
        record = {"kind": "image", "path": str(path), "prompt": f"prompt {n // 3}", "prompt_id": str(n // 3)}
        records.append({**record, **more})
    Path(name).write_text("".join(json.dumps(r) + "\n" for r in records))
    return records


def asked() -> list[str]:
    paths = [path for batch in Counting.asked for path in batch]
    Counting.asked.clear()
    return paths


COMMAND = ("judge", "r.jsonl", "--model", "counting", "-b", "4")


def test_nothing_is_asked_twice(sanactl: Program) -> None:
    """Another output, --keep, place, batch size, list of prompts: only what is new is asked about."""
    whole = sanactl(*COMMAND, "--all")
    assert len(asked()) == 6
    assert sanactl(*COMMAND, "--all", "-o", "again.jsonl") == whole
    assert "6 verdicts are taken over from earlier runs" in sanactl.said
    sanactl(*COMMAND, "--keep", "2", "-b", "1")
    Path("elsewhere").mkdir()
    for n in range(6):
        shutil.copyfile(f"{n}.png", f"elsewhere/copy-{n}.png")
    moved = [{**r, "path": f"elsewhere/copy-{Path(r['path']).name}"} for r in write_records(range(6))]
    copies = "".join(json.dumps({**r, "seed": 3}) + "\n" for r in moved)
    there = sanactl("judge", "-", "--all", "--model", "counting", stdin=copies)
    assert [r["judge_score"] for r in there] == [r["judge_score"] for r in whole]
    assert asked() == []
    write_records(range(4, 9))
    sanactl(*COMMAND)
    assert asked() == ["6.png", "7.png", "8.png"]


def test_what_a_verdict_depends_on_is_asked_about(sanactl: Program) -> None:
    sanactl(*COMMAND)
    asked()
    sanactl(*COMMAND, "--judge-option", "gain=0.5")  # another judge
    assert len(asked()) == 6
    write_records(range(6), prompt="another prompt")
    sanactl(*COMMAND)
    assert len(asked()) == 6
    write_png(np.full((8, 8, 3), 7, np.uint8), Path("0.png"))  # another image at the same path
    sanactl(*COMMAND)
    assert asked() == ["0.png"]
    sanactl(*COMMAND, "--no-cache")
    assert len(asked()) == 6


def test_the_same_image_twice_is_asked_about_once(sanactl: Program) -> None:
    records = write_records([0, 0, 1, 0, 1, 2])
    found = sanactl(*COMMAND, "--all", "-b", "2")
    assert Counting.asked == [["0.png", "1.png"], ["2.png"]]
    assert len(found) == len(records)
    assert "taken over" not in sanactl.said  # of this run itself


def test_a_judge_that_does_not_say_what_it_reads(sanactl: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Counting, "reads")
    sanactl(*COMMAND)
    asked()
    shutil.copyfile("0.png", "copy.png")
    records = write_records(range(2))
    records[0]["path"] = "copy.png"
    records[1]["seed"] = 5
    found = "".join(json.dumps(r) + "\n" for r in records)
    sanactl("judge", "-", "--model", "counting", stdin=found)
    assert asked() == ["1.png"]


def test_the_oracle_reads_what_the_rules_read() -> None:
    """Each field that decides is in the key; the prompt's wording is not."""
    write_png(np.zeros((64, 64, 3), np.uint8), Path("black.png"))
    clause = {"class": "circle", "count": 1}
    record = {"path": "black.png", "prompt": "a circle", "tag": "single_object", "include": [clause]}
    cache = VerdictCache(None, OracleJudge())
    keys = cache.question(record).keys
    assert cache.question({**record, "prompt": "a round thing", "seed": 1}).keys == keys
    for field, value in (
        ("tag", "counting"),
        ("include", [{**clause, "count": 2}]),
        ("exclude", [{**clause, "count": 2}]),
    ):
        assert cache.question({**record, field: value}).keys != keys


def lines() -> tuple[Path, list[bytes]]:
    (file,) = Path(".sanactl/verdicts").glob("*.jsonl")
    return file, file.read_bytes().splitlines(keepends=True)


@pytest.mark.parametrize("damage", ["cut", "bit", "zeros", "junk", "foreign"])
def test_a_damaged_line_is_ignored(sanactl: Program, damage: str) -> None:
    whole = sanactl(*COMMAND, "--all", "-b", "2")
    asked()
    file, kept = lines()
    assert len(kept) == 3
    middle = {
        "cut": kept[1][:40] + b"\n",
        "bit": kept[1].replace(b'"yes"', b'"no"').replace(b'"no"', b'"yes"', 1)[:-2] + b"1\n",
        "zeros": bytes(len(kept[1])) + b"\n",
        "junk": b"\xff" * 30 + b"\n" + b"[" * 100_000 + b"\n",
        "foreign": kept_rows._checksum(b'[["k", "maybe", NaN, 3], 7]') + b' [["k", "maybe", NaN, 3], 7]\n',
    }[damage]
    file.write_bytes(kept[0] + middle + kept[2])
    assert sanactl(*COMMAND, "--all", "-b", "2") == whole
    assert asked() == ["2.png", "3.png"]
    file.write_bytes(b"".join(kept)[:-5])  # as a kill leaves it; the next line begins below
    assert sanactl(*COMMAND, "--all", "-b", "2") == whole
    assert asked() == ["4.png", "5.png"]
    sanactl(*COMMAND)
    assert asked() == []


def test_verdicts_come_back_to_the_last_digit(folder: Path) -> None:
    class Exact(Counting):
        def judge(self, images: Any, records: Any) -> list[Verdict]:
            rng = np.random.default_rng(1)
            more = {"verdicts": [{"answer_mass": 1 / 3}]}
            logs = [(-rng.random(2) * 1e-7).tolist() for _ in images]
            return [Verdict("no", yes, no, 0.1 + 0.2, more) for yes, no in logs]

    records = write_records(range(6))
    first = VerdictCache(folder, Exact()).verdicts(records)
    assert VerdictCache(folder, Exact()).verdicts(records) == first


def test_rounds_ask_only_for_what_is_new(folder: Path) -> None:
    """As a search in rounds uses it, with images that it has decoded already."""
    records = write_records(range(6))
    cache = VerdictCache(folder, Counting())
    cache.verdicts(records[:3])
    images = [np.full((8, 8, 3), 9, np.uint8)] * 6
    found = cache.verdicts(records, images, batch_size=2)
    assert Counting.asked == [["0.png", "1.png", "2.png"], ["3.png", "4.png"], ["5.png"]]
    assert len(found) == 6 and found[3].yes_logprob == np.log((9 + len("prompt 1")) / 512)


def test_an_image_that_changes_before_it_is_judged(folder: Path) -> None:
    cache = VerdictCache(folder, Counting())
    question = cache.question(write_records([1])[0], hold=False)
    write_png(np.full((8, 8, 3), 9, np.uint8), Path("1.png"))
    with pytest.raises(InputError, match=r"1\.png: this image changed"):
        cache.ask([question])
    assert not Path(".sanactl").exists()


def test_two_runs_in_one_folder(folder: Path, sanactl: Program) -> None:
    """Each keeps its verdicts in the same file; none is lost or torn."""
    records = [write_records(range(12 * k, 12 * k + 12), f"{k}.jsonl") for k in range(2)]
    runs = [VerdictCache(folder, Counting(gain=0.7)) for _ in records]

    def run(cache: VerdictCache, some: list[dict[str, Any]]) -> None:
        for record in some:
            cache.verdicts([record])

    threads = [threading.Thread(target=run, args=pair) for pair in zip(runs, records, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(asked()) == 24
    assert len(VerdictCache(folder, Counting(gain=0.7)).verdicts([*records[0], *records[1]])) == 24
    assert asked() == []


@pytest.mark.parametrize("obstacle", ["file", "read-only", "directory"])
def test_where_nothing_can_be_kept(folder: Path, sanactl: Program, obstacle: str) -> None:
    """One line; the command goes on."""
    place = folder / ".sanactl"
    if obstacle == "file":
        place.write_text("x")
    elif obstacle == "read-only":
        place.mkdir(mode=0o500)
    else:
        sanactl(*COMMAND)
        file, _ = lines()
        file.unlink()
        file.mkdir()
    asked()
    if obstacle == "read-only" and _is_root(place):
        pytest.skip("root may write everywhere")
    assert len(sanactl(*COMMAND, "--all", "-b", "2")) == 6
    assert sanactl.said.count("verdicts cannot be kept for later runs") == 1
    assert len(asked()) == 6


def _is_root(place: Path) -> bool:
    try:
        (place / "x").mkdir()
    except OSError:
        return False
    return True


def test_the_files_are_bounded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file takes so many bytes, all of them together so many; the least recently used go first."""
    records = write_records(range(12))
    monkeypatch.setattr(kept_rows, "MAX_FILE", 150)
    cache = VerdictCache(folder, Counting())
    for record in records:
        cache.verdicts([record])
    files = sorted(Path(".sanactl/verdicts").iterdir())
    assert len(files) > 3 and all(f.stat().st_size < 300 for f in files)
    assert len(VerdictCache(folder, Counting()).verdicts(records)) == 12
    assert len(asked()) == 12
    total = sum(f.stat().st_size for f in files)
    monkeypatch.setattr(module, "MAX_BYTES", total // 2)
    VerdictCache(folder, Counting(gain=0.5))
    left = sorted(Path(".sanactl/verdicts").iterdir())
    assert sum(f.stat().st_size for f in left) <= total // 2
    assert left == files[-len(left) :]


@pytest.mark.parametrize(
    ("trouble", "said"),
    [("gone", "5.png: no such image"), ("damaged", "5.png: not a readable image"), ("nan", "gives NaN")],
)
def test_trouble_midway_keeps_the_verdicts_before_it(
    sanactl: Program, monkeypatch: pytest.MonkeyPatch, trouble: str, said: str
) -> None:
    """One line, exit code 1, no output; the batches before it are not asked about again."""
    if trouble == "gone":
        Path("5.png").unlink()
    elif trouble == "damaged":
        Path("5.png").write_bytes(Path("5.png").read_bytes()[:50])
    judge = Counting.judge

    def broken(self: Counting, images: Any, records: Any) -> list[Verdict]:
        found = judge(self, images, records)
        bad = Verdict("no", float("nan"), -1.0)
        return [
            bad if trouble == "nan" and r["path"] == "5.png" else v
            for v, r in zip(found, records, strict=True)
        ]

    monkeypatch.setattr(Counting, "judge", broken)
    assert said in sanactl.fails(*COMMAND, "-b", "2")
    assert not Path("judge.jsonl").exists()
    monkeypatch.setattr(Counting, "judge", judge)
    Path("5.png").unlink(missing_ok=True)
    write_records(range(6))
    asked()
    assert len(sanactl(*COMMAND, "--all", "-b", "2")) == 6
    assert asked() == ["4.png", "5.png"]
