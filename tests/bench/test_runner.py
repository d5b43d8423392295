"""Parts of a measurement, each in a process of its own: results that survive a cut, parts that cost no other, limits of time."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from sanactl.bench.rows import Rows, read_rows, tables
from sanactl.bench.runner import Part, Results, run_parts
from tests.processes import runs, wait_for

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


def test_slow_parts_cannot_pass_the_time(tmp_path: Path) -> None:
    """Parts that never end: each is killed at its limit or at the end of all, and one that would not fit is not begun."""
    results = Results(tmp_path)
    slow = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); "
    slow += "rows.add('t', began=time.time()); time.sleep(600)"
    parts = [
        part(results.rows, "one", slow, seconds=6),
        dataclasses.replace(part(results.rows, "too long", slow, seconds=600), least=100),
        part(results.rows, "two", slow, seconds=600),
        part(results.rows, "three", slow, seconds=600),
    ]
    started = time.monotonic()
    assert not run_parts(parts, results, seconds=30, began=started - 2)
    assert time.monotonic() - started < 28
    faults = {row["what"]: row["fault"] for row in read_rows(results.rows) if row["table"] == "faults"}
    assert faults["one"] == "ended after 6 s"
    assert re.fullmatch(r"left out: 1\d s were left, it takes about 100 s", faults["too long"])
    assert re.fullmatch(r"ended after 1\d s", faults["two"])
    assert faults["three"] == "left out: 0 s were left, it takes about 0 s"
    assert not [pid for pid in os.listdir("/proc") if pid.isdigit() and runs_slowly(pid, tmp_path)]


def runs_slowly(pid: str, folder: Path) -> bool:
    """Whether this is a part of a run in the folder that still runs."""
    try:
        return str(folder).encode() in Path(f"/proc/{pid}/cmdline").read_bytes() and runs(int(pid))
    except OSError:
        return False


RUN = """
from pathlib import Path
from sanactl.bench.runner import Part, Results, run_parts
code = "import os, time; from sanactl.bench.runner import heed_limits; heed_limits(); "
code += "from pathlib import Path; from sanactl.bench.rows import Rows; rows = Rows(Path({file!r}), {part!r}); "
code += "[(rows.add('t', number=n, pid=os.getpid(), at=time.time()), time.sleep(0.4)) for n in range(4)]"
folder = Path({folder!r})
parts = [Part(n, 60, ["-c", code.format(file=str(folder / "results.jsonl"), part=n)]) for n in ("a", "b", "c")]
raise SystemExit(not run_parts(parts, Results(folder), seconds=120, on="card"))
"""


def test_a_run_that_is_killed_anywhere_goes_on(tmp_path: Path) -> None:
    """Killed again and again, at other places each time, it gets done; no part that was done is done again."""
    file = tmp_path / "results.jsonl"
    command = [sys.executable, "-c", RUN.replace("{folder!r}", repr(str(tmp_path)))]
    for wanted in (2, 5, 7, 10):  # rows of the parts
        runner = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            wait_for(lambda n=wanted: sum(row["table"] == "t" for row in read_rows(file)) >= n)
        finally:
            runner.kill()
            runner.wait()
        with file.open("ab") as cut:
            cut.write(b'{"part": "a", "table": "t", "numb')  # as if the last write had been cut
    assert subprocess.run(command, stderr=subprocess.DEVNULL, timeout=120).returncode == 0
    rows = read_rows(file)
    done = [row["part"] for row in rows if row["table"] == "parts"]
    assert done == ["a", "b", "c"]
    for name in done:
        measured = [row for row in rows if row["table"] == "t" and row["part"] == name]
        last = [row for row in measured if row["pid"] == measured[-1]["pid"]]
        assert [row["number"] for row in last] == [0, 1, 2, 3]
    order = [row["pid"] for row in rows if row["table"] == "t"]
    assert order == sorted(order, key=order.index)  # no part went on beside another
    assert tables(rows) == (tmp_path / "table.md").read_text()


def test_parts_for_which_no_time_is_left_are_named(tmp_path: Path) -> None:
    results = Results(tmp_path)
    assert not run_parts([part(results.rows, "late", "rows.add('t', found=1)")], results, seconds=6)
    assert [row["fault"] for row in read_rows(results.rows)] == [
        "left out: 0 s were left, it takes about 0 s"
    ]


def test_a_run_that_is_killed_leaves_its_rows_and_no_process(tmp_path: Path) -> None:
    """A part ends with the run, so that the next run does not measure beside it."""
    file = tmp_path / "results.jsonl"
    code = f"""
from pathlib import Path
from sanactl.bench.runner import Part, Results, run_parts
hang = "import os, time; from sanactl.bench.runner import heed_limits; heed_limits(); "
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


def test_a_part_ends_in_time_without_its_parent() -> None:
    """By an alarm of its own, where a system does not end it with the run."""
    code = "import time; from sanactl.bench.runner import heed_limits; heed_limits(); time.sleep(600)"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "SANACTL_BENCH_ALARM": "1"}, timeout=60
    )
    assert done.returncode == -signal.SIGALRM
