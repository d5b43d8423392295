"""The measurement runs end to end, cleans up after itself, and the light commands stay light."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sanactl.bench import surgery as bench_surgery
from sanactl.bench.surgery import Shape
from sanactl.bench.synthetic import TINY, compare, measure, synthetic_checkpoint
from sanactl.errors import SanactlError
from tests.program import Program, heed_interrupts

SANACTL = [sys.executable, "-m", "sanactl"]
HEAVY = (
    "torch",
    "transformers",
    "diffusers",
    "datasets",
    "accelerate",
    "safetensors",
    "pandas",
    "matplotlib",
)


def test_the_shapes_at_full_scale_are_the_published_ones() -> None:
    assert Shape.at(1) == Shape(base=20, dropped=2, deep=60, pruned=30)
    assert Shape.at(0.1) == Shape(base=2, dropped=0, deep=6, pruned=3)


def test_bench_surgery_measures_every_contender_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sanactl: Program
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = sanactl("bench", "surgery", "--tiny", "--scale", "0.1", "--rounds", "1", "--no-diffusers")
    assert os.listdir(tmp_path) == []
    assert all(row["kind"] == "score" and row["metric"] == "bench_surgery" for row in rows)
    contenders: dict[tuple[object, ...], list[str]] = {
        (row["task"], *row.get("blocks", ())): [] for row in rows
    }
    for row in rows:
        contenders[(row["task"], *row.get("blocks", ()))].append(row["contender"])
        assert row["seconds"] > 0 and row["value"] > 0
    assert list(contenders) == [("start-up",), ("grow", 2, 6), ("prune", 6, 3)]
    assert "cp of the output, holes kept" in contenders["grow", 2, 6]
    assert set(contenders["prune", 6, 3]) == {
        "cp", "sanactl", "cp, not flushed", "sanactl, not flushed", "safetensors script"
    }  # fmt: skip


def test_scripts_and_program_make_the_same_model(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    from sanactl.bench.surgery_scripts import SAFETENSORS

    source = synthetic_checkpoint(tmp_path / "base", {**TINY, "num_layers": 4})
    numbers = ["prune", str(source), "2", "0", "0,2", "-o", str(tmp_path / "script.st")]
    measure([sys.executable, "-c", SAFETENSORS, *numbers])
    measure([*SANACTL, "prune", str(source), "--blocks", "0,2", "-o", str(tmp_path / "sanactl.st")], tmp_path)
    script, ours = load_file(tmp_path / "script.st"), load_file(tmp_path / "sanactl.st")
    assert {name: array.tobytes() for name, array in script.items()} == {
        name: array.tobytes() for name, array in ours.items()
    }


def test_a_disk_that_is_too_small_is_said_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**9, 0, 10**9))
    with pytest.raises(SanactlError, match=r"GB are needed and 1\.0 GB are free"):
        next(bench_surgery.bench_surgery(tmp_path, scale=1))
    assert os.listdir(tmp_path) == []


def test_an_interrupt_stops_the_measurement_and_removes_its_files(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*SANACTL, "bench", "surgery", "--tiny", "--rounds", "9"],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=heed_interrupts,
    )
    until = time.monotonic() + 60
    while not os.listdir(tmp_path) and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.decode().splitlines()[-1] == "sanactl: interrupted"
    assert os.listdir(tmp_path) == []


def test_a_contender_that_fails_says_why() -> None:
    with pytest.raises(SanactlError, match="code 3: oh no"):
        measure([sys.executable, "-c", "import sys; print('oh no', file=sys.stderr); sys.exit(3)"])


def test_contenders_take_turns(tmp_path: Path) -> None:
    turns: list[str] = []
    command = ["sh", "-c", "echo x > target"]
    rows = compare({"a": lambda _: command, "b": lambda _: command}, tmp_path / "target", 3, turns.append)
    assert turns == ["a", "b"] * 3
    assert rows[0]["ratio"] == 1
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "also_not"),
    [
        (["--help"], ("pydantic", "numpy", "rich.console", "hashlib")),
        (["inspect", "base.st"], ("pydantic", "numpy")),
        (["log"], ("pydantic", "numpy")),
        (["prune", "base.st", "--blocks", "0-1"], ("pydantic", "numpy")),
        (["convert", "base.st", "-o", "folder"], ("pydantic", "numpy")),
        (["convert", "base.st", "-o", "native.pth"], ("pydantic", "numpy")),
        (["grow", "base.st", "--to", "6", "--init", "cyclic"], ("pydantic", "numpy")),
        (["grow", "base.st", "--to", "6"], ("pydantic",)),
        (["bench", "surgery", "--help"], ("numpy",)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_light_commands_import_nothing_heavy(
    tmp_path: Path, arguments: list[str], also_not: tuple[str, ...]
) -> None:
    synthetic_checkpoint(tmp_path / "base.st")
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "sanactl", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    imported = {line.rpartition("|")[2].strip() for line in lines}
    assert "sanactl.cli.app" in imported
    assert not imported & {*HEAVY, *also_not}
