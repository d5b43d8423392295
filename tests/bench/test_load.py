"""`bench load`: speeds of phases, busy processes that are gone afterwards, and the environment that keeps the pace."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sanactl.bench import load
from sanactl.bench.load import Phases, measure_load
from sanactl.errors import UsageError
from tests.program import Program


def children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def test_phases_take_turns_and_leave_nothing_running(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that goes on by a second a unit, and by four beside busy processes."""
    now, seen, before = [0.0], [], children()
    monkeypatch.setattr(load.time, "monotonic", lambda: now[0])
    with Phases(busy=2, seconds=10, rounds=2) as phases, pytest.raises(load._Done):
        while True:
            running = children() - before
            seen.append(len(running))
            now[0] += 4 if running else 1
            phases.done(8)
    assert phases.speeds == ([8, 8], [2, 2])
    assert set(seen) == {0, 2}
    assert children() == before


def test_commands_are_measured(sanactl: Program) -> None:
    before = children()
    (row,) = sanactl("bench", "load", "--task", "judge", "--busy", "1", "--seconds", "0.2", "--rounds", "1")
    assert (row["kind"], row["metric"], row["task"]) == ("score", "beside_other_work", "judge")
    assert (row["busy"], row["threads"]) == (1, 1)
    assert row["ratio"] == pytest.approx(row["loaded"] / row["idle"], abs=1e-2)
    assert children() == before


@pytest.mark.slow
@pytest.mark.parametrize("task", ["finetune", "sample", "importance"])
def test_the_other_commands(task: str) -> None:
    (row,) = measure_load([task], busy=1, seconds=0.1, rounds=1)
    assert row["task"] == task
    assert row["idle"] > 0
    assert row["loaded"] > 0


def test_an_unknown_task_is_named(sanactl: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError):
        list(measure_load(["judge", "jude"]))
    assert "'jude'" in sanactl.fails("bench", "load", "--task", "jude", code=2)


@pytest.mark.parametrize(
    ("given", "spins"),
    [({}, "5000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, "None")],
)
def test_threads_spin_briefly_unless_the_user_says_otherwise(given: dict[str, str], spins: str) -> None:
    environment = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    code = "import os; from sanactl.cli.frame.process import prepare; prepare(); print(os.environ.get('GOMP_SPINCOUNT'))"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**environment, **given}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == spins
