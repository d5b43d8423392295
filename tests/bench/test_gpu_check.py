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

from sanactl.bench import optimizers
from sanactl.bench.gpu_check import PARTS, main
from sanactl.bench.parts import do_part
from sanactl.bench.rows import Rows, read_rows, tables
from sanactl.bench.runner import Part, Results, run_parts
from sanactl.cli.frame.deferred import defer_imports
from tests.bare_machine import bare_python

SCRIPT = Path(__file__).parents[2] / "recipes" / "gpu-check.sh"
# What the machines that are lent have, and diffusers beside the repository.
PACKAGES = ("torch", "triton", "transformers", "safetensors", "numpy", "diffusers")
ADD = "from pathlib import Path; from sanactl.bench.rows import Rows; rows = Rows(Path({file!r}), {part!r}); "


def part(file: Path, name: str, code: str, seconds: float = 60) -> Part:
    return Part(name, seconds, ["-c", ADD.format(file=str(file), part=name) + code])


def test_a_row_cut_short_costs_itself_alone(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    rows = Rows(file, "one")
    rows.add("speeds", name="a|b", ms=1.23456, share=float("nan"))
    rows.add("speeds", name="c", peak=12345.6)
    file.write_bytes(file.read_bytes() + b'{"part": "one", "table": "speeds", "na')
    found = read_rows(file)
    assert [row["name"] for row in found] == ["a|b", "c"]
    assert found[0]["share"] is None
    assert tables(found).splitlines() == [
        "### speeds",
        "",
        "| name | ms | share | peak |",
        "|---|---|---|---|",
        "| a\\|b | 1.235 |  |  |",
        "| c |  |  | 12,346 |",
    ]


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


def test_a_part_costs_no_other_part(tmp_path: Path) -> None:
    results = Results(tmp_path)
    file = results.rows
    said: list[str] = []
    parts = [
        part(file, "crash", "rows.add('t', found=1); import os; os.kill(os.getpid(), 11)"),
        part(file, "error", "rows.add('t', found=2); raise MemoryError('no room')"),
        part(file, "hang", "rows.add('t', found=3); import time; time.sleep(600)", seconds=5),
        part(file, "good", "rows.add('t', found=4)"),
    ]
    started = time.monotonic()
    assert not run_parts(parts, results, seconds=120, say=said.append)
    assert time.monotonic() - started < 100
    rows = read_rows(file)
    assert [row["found"] for row in rows if row["table"] == "t"] == [1, 2, 3, 4]
    faults = {row["what"]: row["fault"] for row in rows if row["table"] == "faults"}
    assert faults == {
        "crash": "exit code -11: it said nothing",
        "error": "exit code 1: MemoryError: no room",
        "hang": "ended after 5 s",
    }
    assert results.table.read_text() == tables(rows)
    assert tables(rows).count("| good |") == 1
    assert any("found 4" in line for line in said)


def test_parts_for_which_no_time_is_left_are_named(tmp_path: Path) -> None:
    results = Results(tmp_path)
    assert not run_parts([part(results.rows, "late", "rows.add('t', found=1)")], results, seconds=6)
    assert [row["fault"] for row in read_rows(results.rows)] == ["left out: no time was left"]


def test_a_run_that_is_killed_leaves_its_rows_and_no_process(tmp_path: Path) -> None:
    """The part has an alarm of its own, for the case that its parent is gone at once."""
    file = tmp_path / "results.jsonl"
    code = f"""
from pathlib import Path
from sanactl.bench.runner import Part, Results, run_parts
from sanactl.cli.frame.deferred import defer_imports
from tests.bare_machine import bare_python
hang = "import os, time; from sanactl.bench.runner import heed_alarm; heed_alarm(); "
hang += {ADD.format(file=str(file), part="hang")!r} + "rows.add('t', pid=os.getpid()); time.sleep(600)"
run_parts([Part("hang", 6, ["-c", hang])], Results(Path({str(tmp_path)!r})), seconds=60)
"""
    runner = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: read_rows(file) != [])
    finally:
        runner.kill()
        runner.wait()
    (row,) = read_rows(file)
    wait_for(lambda: not runs(row["pid"]))


def test_a_run_that_is_terminated_ends_its_part(tmp_path: Path) -> None:
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
        runner.send_signal(signal.SIGTERM)
        assert runner.wait(30) == 143
    finally:
        runner.kill()
    assert children
    wait_for(lambda: not any(runs(int(child)) for child in children))


def wait_for(what: object, seconds: float = 60) -> None:
    assert callable(what)
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


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


def test_a_part_that_was_cut_is_measured_again(tmp_path: Path) -> None:
    results = Results(tmp_path)
    cut = part(results.rows, "one", "rows.add('t', what='a', ms=1.0); raise SystemExit(3)")
    assert not run_parts([cut], results, seconds=60, on="card")
    whole = part(results.rows, "one", "rows.add('t', what='a', ms=2.0); rows.add('t', what='b', ms=3.0)")
    for _ in range(2):
        assert run_parts([whole], results, seconds=60, on="card")
    rows = read_rows(results.rows)
    assert [row["ms"] for row in rows if row["table"] == "t"] == [1.0, 2.0, 3.0]
    shown = tables(rows)
    assert (
        "| a | 2 |\n| b | 3 |" in shown
        and "1 |" not in shown.partition("###")[0]
        and "exit code 3" not in shown
    )
    assert run_parts([whole], results, seconds=60, on="another card")
    assert len(read_rows(results.rows)) == len(rows) + 3


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
