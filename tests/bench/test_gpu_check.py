"""`recipes/gpu-check.sh`: results that survive a cut, parts that cost no other part, and its parts in small on the CPU."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

from sanactl.bench import gpu_check, optimizers
from sanactl.bench.gpu_check import PARTS, main
from sanactl.bench.parts import do_part
from sanactl.bench.rows import Rows, read_rows, tables
from sanactl.cli.frame.deferred import defer_imports
from tests.bare_machine import bare_python
from tests.processes import runs, wait_for

SCRIPT = Path(__file__).parents[2] / "recipes" / "gpu-check.sh"
# What the machines that are lent have, and diffusers beside the repository.
PACKAGES = ("torch", "triton", "transformers", "safetensors", "numpy", "diffusers")


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (["--table", "/nothere"], "--table /nothere: no such file"),
        (["--minutes=-3"], "--minutes has to be above 0, got -3"),
        (["--minutes", "nan"], "--minutes has to be above 0, got nan"),
        (["--only", ""], "unknown part ''"),
    ],
)
def test_wrong_options(option: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(option) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1) and err.startswith(said)


def test_no_part_can_begin_that_would_not_fit() -> None:
    for least, most, _ in PARTS.values():
        assert 0 < least < most <= 540 / 2


def test_the_minutes_count_from_the_scripts_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    for began, gone in ((str(time.time() - 100), 100), ("", 0), ("soon", 0), (str(time.time() + 100), 0)):
        monkeypatch.setenv("SANACTL_BENCH_BEGAN", began)
        assert gpu_check._gone() == pytest.approx(gone, abs=5)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_terminated_ends_its_part(number: signal.Signals, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "sanactl.bench.gpu_check",
        "--small",
        "--only",
        "kernels",
        "--out",
        "out",
    ]
    runner = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: read_rows(tmp_path / "out" / "results.jsonl") != [])
        children = Path(f"/proc/{runner.pid}/task/{runner.pid}/children").read_text().split()
        runner.send_signal(number)
        assert runner.wait(60) == 128 + number
    finally:
        runner.kill()
    assert children
    wait_for(lambda: not any(runs(int(child)) for child in children))


def test_an_unknown_part_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "machine,gpus", "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.startswith("unknown part 'gpus'; the parts are machine, ")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["sample-1.6b", "optim-1.6b-fp32"])
def test_parts_in_small(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        optimizers, "OPTIMIZERS", ("adamw-fused", "came8bit")
    )  # others take seconds to import
    defer_imports()  # as in the program: less to import
    file = tmp_path / "rows.jsonl"
    assert do_part(name, Rows(file, name), small=True) == 0
    rows = read_rows(file)
    if name == "sample-1.6b":
        assert [(r["way"], r["batch"]) for r in rows] == [
            (way, batch) for batch in (1, 2) for way in ("SanaPipeline", "sanactl")
        ]
        assert all(r["images_per_second"] == pytest.approx(r["batch"] / r["seconds"]) for r in rows)
        assert all(("share_of_theirs" in r) == (r["way"] == "sanactl") for r in rows)
    else:
        measured = {r["optimizer"]: r for r in rows}
        assert measured["adamw-fused"]["state_bytes"] == pytest.approx(8, abs=0.01)
        assert measured["came8bit"]["parameters"].endswith("float32")
        assert measured["came8bit"]["launches"] is None  # of GPUs alone


# Runs a part, and imports what the part `world` does beside that.
IMPORTS = """
from pathlib import Path
from sanactl.bench.parts import do_part
from sanactl.bench.rows import Rows
from sanactl.bench.world import provide_packages

do_part("train-4.8b", Rows(Path("train.jsonl"), "train-4.8b"), small=True)
provide_packages()
import accelerate, sanactl.training.finetune, sanactl.sampling.importance, sanactl.judging.select
print(accelerate.__version__)
"""


def test_the_script_on_a_machine_with_six_packages(tmp_path: Path) -> None:
    """As a user runs it, from another folder; a second run measures nothing again."""
    python = bare_python(tmp_path, PACKAGES)
    done = run_script(tmp_path, "--only", "machine", python=python)
    rows = read_rows(tmp_path / "results" / "results.jsonl")
    assert done.stdout == tables(rows) == (tmp_path / "results" / "table.md").read_text()
    found = {row["what"]: row["value"] for row in rows if row["table"] == "machine"}
    assert (found["accelerate"], found["diffusers"]) == ("not installed", version("diffusers"))
    again = run_script(tmp_path, "--only", "machine", python=python)
    assert "machine: was done before" in again.stderr
    assert read_rows(tmp_path / "results" / "results.jsonl") == rows

    root = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[1])}
    imported = subprocess.run([python, "-c", IMPORTS], cwd=tmp_path, env=root, capture_output=True, text=True)
    assert (imported.returncode, imported.stdout) == (0, "0.0\n"), imported.stderr
    (row,) = read_rows(tmp_path / "train.jsonl")
    assert row["optimizer"] == "came8bit" and row["ms"] > row["of_it_optimizer_ms"] > 0


def test_wheels_are_unpacked_once(tmp_path: Path) -> None:
    (tmp_path / "nothing.jsonl").touch()
    (tmp_path / "wheels").mkdir()
    with zipfile.ZipFile(tmp_path / "wheels" / "brought-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("sitecustomize.py", "import sys; print('from the wheel', file=sys.stderr)")
    for _ in range(2):
        done = run_script(tmp_path, "--table", "nothing.jsonl", WHEELS="wheels")
        assert "from the wheel" in done.stderr
    assert (tmp_path / "results" / "packages" / "sitecustomize.py").exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_whole_script_in_small(tmp_path: Path) -> None:
    python = bare_python(tmp_path, (*PACKAGES, "pytest"))
    run_script(tmp_path, python=python)
    rows = read_rows(tmp_path / "results" / "results.jsonl")
    assert {row["part"] for row in rows} == set(PARTS)
    assert {row["outcome"] for row in rows if row["table"] == "tests of GPUs"} <= {"passed", "skipped"}
    kernels = [row for row in rows if row["table"] == "kernels beside their torch twin"]
    assert {row["kernel"] for row in kernels} == {"square_sums", "residual_sums", "apply"}
    assert all(row["difference"] < 1e-4 for row in kernels)
    world = [row for row in rows if row["table"] == "the built-in world"]
    assert world[0]["images"] == "base-images/judged.jsonl"  # there is no scipy
    assert (tmp_path / "results" / "world" / world[0]["images"]).exists()
    assert 0 < world[0]["judge"] < 1
    # A part that was cut goes on after its last step.
    lines = (tmp_path / "results" / "results.jsonl").read_text().splitlines()
    kept = [line for line in lines if '"what": "world"' not in line and "judge's choice" not in line]
    (tmp_path / "results" / "results.jsonl").write_text("\n".join(kept[:-1]) + "\n")
    run_script(tmp_path, "--only", "world", python=python)
    steps = [row["step"] for row in read_rows(tmp_path / "results" / "results.jsonl") if "step" in row]
    assert sorted(steps) == sorted(row["step"] for row in world)


def run_script(
    folder: Path, *arguments: str, python: str | Path = sys.executable, **variables: str
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [str(SCRIPT), *arguments],
        cwd=folder,
        env={**os.environ, "SMALL": "1", "OUT": "results", "PYTHON": str(python), **variables},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done
