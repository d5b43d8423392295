"""`recipes/gpu-check.sh`: results that survive a cut, parts that cost no other part, and its parts in small on the CPU."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sanactl.bench.gpu_check import PARTS, main
from sanactl.bench.parts import do_part
from sanactl.bench.rows import Rows, read_rows, tables
from sanactl.bench.runner import Part, Results, run_parts

SCRIPT = Path(__file__).parents[2] / "recipes" / "gpu-check.sh"
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


def test_a_part_costs_no_other_part(tmp_path: Path) -> None:
    results = Results(tmp_path)
    file = results.rows
    said: list[str] = []
    parts = [
        part(file, "crash", "rows.add('t', found=1); import os; os.kill(os.getpid(), 11)"),
        part(file, "error", "rows.add('t', found=2); raise MemoryError('no room')"),
        part(file, "hang", "rows.add('t', found=3); import time; time.sleep(600)", seconds=8),
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
        "hang": "ended after 8 s",
    }
    assert results.table.read_text() == tables(rows)
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
hang = "import os, time; from sanactl.bench.runner import heed_alarm; heed_alarm(); "
hang += {ADD.format(file=str(file), part="hang")!r} + "rows.add('t', pid=os.getpid()); time.sleep(600)"
run_parts([Part("hang", 10, ["-c", hang])], Results(Path({str(tmp_path)!r})), seconds=60)
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


@pytest.mark.parametrize("name", ["machine", "sample-1.6b", "train-4.8b", "optim-1.6b-fp32"])
def test_parts_in_small(name: str, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    assert do_part(name, Rows(file, name), small=True) == 0
    rows = read_rows(file)
    if name == "machine":
        assert {row["what"] for row in rows} >= {"torch", "diffusers", "copy, GB/s read and written"}
    elif name == "sample-1.6b":
        assert [(r["way"], r["batch"]) for r in rows] == [
            (way, batch) for batch in (1, 2) for way in ("SanaPipeline", "sanactl")
        ]
        assert all(r["images_per_second"] == pytest.approx(r["batch"] / r["seconds"]) for r in rows)
        assert all(("share_of_theirs" in r) == (r["way"] == "sanactl") for r in rows)
    elif name == "train-4.8b":
        assert [r["optimizer"] for r in rows] == ["came8bit"]
        assert rows[0]["ms"] > rows[0]["of_it_optimizer_ms"] > 0
    else:
        measured = {r["optimizer"]: r for r in rows}
        assert measured["adamw-fused"]["state_bytes"] == pytest.approx(8, abs=0.01)
        assert measured["came8bit"]["parameters"].endswith("float32")


def test_the_script_in_small(tmp_path: Path) -> None:
    """As a user runs it, from another folder: the kernels in Triton's interpreter."""
    done = run_script(tmp_path, "--only", "kernels")
    rows = read_rows(tmp_path / "results" / "results.jsonl")
    assert done.stdout == tables(rows) == (tmp_path / "results" / "table.md").read_text()
    assert {row["kernel"] for row in rows} == {"square_sums", "residual_sums", "apply"}
    assert all(row["difference"] < 1e-4 for row in rows)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_whole_script_in_small(tmp_path: Path) -> None:
    run_script(tmp_path)
    rows = read_rows(tmp_path / "results" / "results.jsonl")
    assert {row["part"] for row in rows} == set(PARTS)
    assert {row["outcome"] for row in rows if row["part"] == "tests"} <= {"passed", "skipped"}
    assert json.dumps(rows)


def run_script(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [str(SCRIPT), *arguments],
        cwd=folder,
        env={**os.environ, "SMALL": "1", "OUT": "results", "PYTHON": sys.executable},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done
