"""`scale`: a prefix of the full run, the same after a kill, and stops where more images would not help."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sanactl as api
from sanactl.checkpoint.builtin import asset
from sanactl.cli.app import main
from sanactl.errors import UsageError
from tests.fork_server import kill, python_command
from tests.program import Program, snapshot

# Three prompts with a judge that sees what was drawn: easy, harder, and of another task.
PROMPTS = [
    {"prompt": "a photo of a red circle", "tag": "colors", "include": [{"class": "circle", "count": 1, "color": "red"}]},
    {"prompt": "a photo of four stars", "tag": "counting", "include": [{"class": "star", "count": 4}]},
    {"prompt": "a photo of a circle", "tag": "single_object", "include": [{"class": "circle", "count": 1}]},
]  # fmt: skip
BASE = str(asset("base.st"))
FEW = ("scale", BASE, "-p", "p.jsonl", "--max", "6", "--round", "2", "-k", "1", "--steps", "3")


def write_prompts(folder: Path) -> None:
    (folder / "p.jsonl").write_text("".join(json.dumps(p) + "\n" for p in PROMPTS))


@pytest.fixture
def prompts(place: Path) -> Path:
    write_prompts(place)
    return place


def test_more_images_than_a_disk_holds(prompts: Path, sanactl: Program) -> None:
    """Neither the judge nor the checkpoint's models are loaded before."""
    many = ("--max", "40000000000", "--round", "40000000000")
    said = sanactl.fails("scale", BASE, "-p", "p.jsonl", *many, code=2)
    assert "120,000,000,000 images take at least 49" in said and "--round or --limit" in said
    with pytest.raises(UsageError, match="120,000,000,000 images"):
        api.scale(BASE, "p.jsonl", max=40_000_000_000, round=40_000_000_000)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--keep", "7", "--max", "6"), "7 images of a prompt cannot be kept of at most 6"),
        (("--stop", "nan"), "stop is nan"),
        (("--stop", "1.5"), "stop is 1.5"),
        (("--futile", "-1"), "futile is -1"),
        (("--futile", "nan"), "futile is nan"),
        (("--budget", "2"), "a budget of 2 images is less than one for each of 3 prompts"),
        (("--judge", "oracle", "--model", "oracle"), "exclude each other"),
    ],
)
def test_settings_that_make_no_sense(
    prompts: Path, sanactl: Program, options: tuple[str, ...], said: str
) -> None:
    assert said in sanactl.fails("scale", "tiny.st", "-p", "p.jsonl", *options, code=2)


def by_prompt(records: list[Any]) -> dict[str, list[Any]]:
    found = defaultdict(list)
    for record in records:
        found[record["prompt"]].append(record)
    return found


@pytest.fixture(scope="module")
def folder_and_records(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    """A folder in which `scale` has run, and what it wrote to stdout."""
    folder = tmp_path_factory.mktemp("ran")
    write_prompts(folder)
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(stdout):
        patch.chdir(folder)
        assert main([*FEW, "--model", "oracle", "-o", "out"]) == 0
    stdout.seek(0)
    return folder, [json.loads(line) for line in stdout]


@pytest.fixture
def ran(prompts: Path, folder_and_records: tuple[Path, list[Any]]) -> list[Any]:
    """The records, and a copy of the folder as the current one."""
    folder, records = folder_and_records
    shutil.copytree(folder, prompts, dirs_exist_ok=True)
    return records


def test_a_run_is_a_prefix_of_the_full_one(prompts: Path, ran: list[Any], sanactl: Program) -> None:
    full = sanactl("sample", BASE, "-p", "p.jsonl", "-n", "6", "--steps", "3", "-o", "full")
    drawn = [json.loads(line) for line in Path("out/images.jsonl").read_text().splitlines()]
    count = {prompt: len(records) for prompt, records in by_prompt(drawn).items()}
    assert {r["prompt"]: r["drawn"] for r in ran} == count and 3 <= len(drawn) < 18
    for record in drawn:
        (same,) = [r for r in full if (r["prompt"], r["index"]) == (record["prompt"], record["index"])]
        assert Path(record["path"]).read_bytes() == Path(same["path"]).read_bytes()
        assert {**record, "path": 0, "samples": 0} == {**same, "path": 0, "samples": 0}
    judged = by_prompt(sanactl("judge", "out/images.jsonl", "--model", "oracle", "-k", "1"))
    for record in ran:
        added = {"round": record["index"] // 2 + 1, "drawn": count[record["prompt"]]}
        added["stopped"] = record["stopped"]
        assert record == {**judged[record["prompt"]][0], **added}
        assert record["stopped"] in ("enough", "futile", "max") and record["flops"] > 0
    # The replay of the full run takes the decisions of this one.
    every = sanactl("judge", "full/images.jsonl", "--model", "oracle", "--all")
    labelled = [{**r, "correct": r["verdict"] == "yes"} for r in every]
    Path("labelled.jsonl").write_text("".join(json.dumps(r) + "\n" for r in labelled))
    replayed = sanactl("eval", "scale", "labelled.jsonl", "-k", "1", "--round", "2")
    assert replayed[:18] == labelled
    scores = {r["metric"]: r for r in replayed[18:]}
    assert scores["scale_images"]["value"] == pytest.approx(len(drawn) / 3, abs=1e-6)
    assert scores["scale_images"]["stopped"] == Counter(r["stopped"] for r in ran)
    assert scores["scale_score"]["value"] == pytest.approx(
        np.mean([r["verdict"] == "yes" for r in ran]), abs=1e-6
    )
    assert scores["scale_full_images"]["value"] == 6
    # A later `sample` draws the rest alone.
    sanactl("sample", BASE, "-p", "p.jsonl", "-n", "6", "--steps", "3", "-o", "out")
    assert f"{len(drawn)} of 18 images were there" in sanactl.said
    assert {p.name: p.read_bytes() for p in Path("out").rglob("*.png")} == {
        p.name: p.read_bytes() for p in Path("full").rglob("*.png")
    }


def test_the_same_again_by_any_batch_size_and_by_function(
    prompts: Path, ran: list[Any], sanactl: Program
) -> None:
    again = sanactl(*FEW, "--model", "oracle", "-o", "small", "-b", "1")
    assert [{**r, "path": 0} for r in again] == [{**r, "path": 0} for r in ran]
    assert [json.loads(line) for line in Path("scale.jsonl").read_text().splitlines()] == ran
    few: dict[str, Any] = {"max": 6, "round": 2, "keep": 1, "steps": 3, "model": "oracle", "output": "out"}
    assert api.scale(BASE, "p.jsonl", **few) == ran


def test_a_budget_is_kept(prompts: Path, sanactl: Program) -> None:
    records = sanactl(*FEW, "--model", "oracle", "-o", "out", "--stop", "1", "--budget", "7", "--futile", "0")
    assert len(list(prompts.glob("out/*/samples/*.png"))) == 7 == sum(r["drawn"] for r in records)
    assert {r["stopped"] for r in records} <= {"budget", "max"} and "budget" in {
        r["stopped"] for r in records
    }


def test_a_run_that_is_killed_goes_on(prompts: Path, sanactl: Program) -> None:
    """With the result of an undisturbed one; nothing is drawn or judged twice."""
    run = (*FEW, "--model", "oracle", "--stop", "1", "--futile", "0", "-o")  # all images
    whole = sanactl(*run, "whole")
    shutil.rmtree(".sanactl")
    Path("scale.jsonl").unlink()
    process = subprocess.Popen(
        [*python_command(), "-m", "sanactl", *run, "cut"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    until = time.monotonic() + 100
    while len(list(prompts.glob("cut/*/samples/*.png"))) < 7 and time.monotonic() < until:
        time.sleep(0.02)
    kill(process)
    process.wait()
    assert not Path("scale.jsonl").exists()
    there = {p: p.stat().st_mtime_ns for p in prompts.glob("cut/*/samples/*.png")}
    assert there
    again = sanactl(*run, "cut")
    assert "images were there already" in sanactl.said
    assert [{**r, "path": 0} for r in again] == [{**r, "path": 0} for r in whole]
    assert {p: p.stat().st_mtime_ns for p in there} == there
    same = {name: data for name, data in snapshot(Path("cut")).items() if name.endswith(".png")}
    assert same == {name: data for name, data in snapshot(Path("whole")).items() if name.endswith(".png")}


def test_trouble_is_one_line_and_nothing_is_lost(prompts: Path, ran: list[Any], sanactl: Program) -> None:
    first = Path(ran[0]["path"])
    kept = first.read_bytes()
    first.write_bytes(kept[:-200])
    before = snapshot(Path.cwd())
    assert sanactl(*FEW, "--model", "oracle", "-o", "out", "--no-cache", code=1) == []
    going_on, said = sanactl.said.splitlines()
    assert "going on: images" in going_on and str(first) in said and snapshot(Path.cwd()) == before
    first.write_bytes(kept)
    assert sanactl(*FEW, "--model", "oracle", "-o", "out") == ran
    assert "scale.jsonl is there already, from the same inputs" in sanactl.said
    first.unlink()  # its file of records names it: it is drawn again
    assert sanactl(*FEW, "--model", "oracle", "-o", "out") == ran and first.read_bytes() == kept
    assert f"{sum(r['drawn'] for r in ran) - 1} of" in sanactl.said and Path("scale-2.jsonl").exists()
    assert "seed 0, not 5" in sanactl.fails(*FEW, "-o", "out", "--seed", "5", code=2)


@pytest.fixture
def calibrated(place: Path) -> Path:
    shutil.copytree(asset("judge"), place / "judge")
    entry = {"judge": "builtin:shapes", "slope": 0.5, "intercept": -1.0}
    text = json.dumps({"kind": "judge-calibration", "version": 1, "calibrations": [entry]})
    (place / "judge/calibration.json").write_text(text)
    return place / "judge"


def test_the_calibration_in_the_judges_folder_is_used(
    prompts: Path, calibrated: Path, sanactl: Program
) -> None:
    few = (*FEW[:-2], "--steps", "1", "--max", "2", "-o", "out", "--model", "judge")
    for record in sanactl(*few):
        odds = 0.5 * (record["yes_logprob"] - record["no_logprob"]) - 1
        assert record["calibrated"] == pytest.approx(1 / (1 + np.exp(-odds)), rel=1e-6)
    (calibrated / "calibration.json").write_text("{")
    assert "calibration.json: not JSON" in sanactl.fails(*few)
