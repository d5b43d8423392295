"""Running the parts of a measurement one after the other, each in a process of its own with a time limit.

A crash, a lack of memory or a hang ends only its own part, and the part's earlier rows are on the disk already.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sanactl.bench.rows import FAULTS, PARTS, Rows, done_parts, read_rows, tables

__all__ = ["Part", "Results", "heed_limits", "run_parts"]

# Seconds: reserved at the end for the last part's death and the last table; the longest wait for a part that was killed;
# the least time for starting any part.
_RESERVE, _DYING, _LEAST = 8.0, 5.0, 3.0
_ALARM, _PARENT = "SANACTL_BENCH_ALARM", "SANACTL_BENCH_PARENT"
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(frozen=True)
class Part:
    """A part of a measurement.

    Attributes:
        name: its name.
        seconds: its time limit.
        command: the arguments of its Python process.
        environment: variables of its own.
        least: the seconds that it about takes. It is not started with less.
    """

    name: str
    seconds: float
    command: Sequence[str]
    environment: tuple[tuple[str, str], ...] = ()
    least: float = 0.0


class Results:
    """The folder of results: `results.jsonl`, the same rows as `table.md`, and the parts' output in `log.txt`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.rows, self.table, self.log = (folder / n for n in ("results.jsonl", "table.md", "log.txt"))
        self._shown = len(read_rows(self.rows))
        self._in_table = 0

    def refresh(self, say: Callable[[str], None]) -> None:
        """Write the table again if it lacks rows, and print rows that are new."""
        rows = read_rows(self.rows)
        if len(rows) == self._in_table:
            return
        for row in rows[self._shown :]:
            say("  " + ", ".join(f"{k} {_short(v)}" for k, v in row.items() if k != "part" and v is not None))
        self._shown = self._in_table = len(rows)
        temporary = self.table.with_name(f".{self.table.name}.tmp")
        temporary.write_text(tables(rows), encoding="utf-8")
        temporary.replace(self.table)


def run_parts(
    parts: Sequence[Part],
    results: Results,
    *,
    seconds: float,
    on: str = "",
    began: float | None = None,
    say: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
) -> bool:
    """Run the parts in order until all are done or the time is over.

    A part that was done to its end gets a row that says so, and is not run again on the same device. A part that fails,
    does not end in time, or cannot start in time gets a row in the table "faults".

    Args:
        seconds: for all parts, whatever they do: a part that runs over is killed.
        on: the name of the device.
        began: when these seconds began, as `time.monotonic` counts; by default now.

    Returns:
        whether every part was done.
    """
    started = time.monotonic() if began is None else began
    end = started + seconds - _RESERVE
    whole, done = True, done_parts(read_rows(results.rows), on)
    for part in parts:
        if part.name in done:
            say(f"{part.name}: was done before")
            continue
        rows, left = Rows(results.rows, part.name), end - time.monotonic()
        if left < max(part.least, _LEAST):
            fault: str | None = f"left out: {max(left, 0):.0f} s were left, it takes about {part.least:.0f} s"
        else:
            say(
                f"{part.name}: {time.monotonic() - started:.0f} s gone, at most {min(part.seconds, left):.0f} s"
            )
            before = time.monotonic()
            fault = _run(part, results, min(part.seconds, left), say)
            if fault is None:
                rows.add(PARTS, what=part.name, on=on, seconds=round(time.monotonic() - before, 1))
        if fault is not None:
            whole = False
            rows.add(FAULTS, what=part.name, fault=fault)
        results.refresh(say)
    results.refresh(say)
    say(f"{time.monotonic() - started:.0f} s; {results.table}")
    return whole


def heed_limits() -> None:
    """Called by a part: it ends with the process that started it, and in time in any case.

    So a run that is killed leaves no part that would go on beside the next run's.
    """
    with contextlib.suppress(OSError, AttributeError):  # not on Linux; the alarm is left
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = os.environ.get(_PARENT)
    if parent is not None and os.getppid() != int(parent):
        sys.exit("the process that started this part is gone")
    seconds = int(os.environ.get(_ALARM, "0"))
    if seconds and hasattr(signal, "alarm"):
        signal.alarm(seconds)


def _run(part: Part, results: Results, seconds: float, say: Callable[[str], None]) -> str | None:
    """Run one part; returns its fault, or None."""
    end = time.monotonic() + seconds
    environment = {**os.environ, **dict(part.environment), "PYTHONUNBUFFERED": "1"}
    # The alarm ends a part whose parent was killed, one second after the parent's own limit.
    environment[_ALARM] = str(int(seconds) + 1)
    environment[_PARENT] = str(os.getpid())
    with results.log.open("ab") as log:
        log.write(f"\n--- {part.name}\n".encode())
        log.flush()
        begin = log.tell()
        process = subprocess.Popen(
            [sys.executable, *(["-S"] if sys.flags.no_site else []), *part.command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )
        try:
            while process.poll() is None and time.monotonic() < end:
                time.sleep(0.1)
                results.refresh(say)
        finally:
            late = process.poll() is None
            if late:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_DYING)
    if process.returncode is None:  # it waits for a driver, say
        return f"killed after {seconds:.0f} s, and did not end"
    if late:
        return f"ended after {seconds:.0f} s"
    if process.returncode == 0:
        return None
    with results.log.open("rb") as log:
        log.seek(begin)
        said = log.read().decode(errors="replace").strip().splitlines()
    return f"exit code {process.returncode}: {said[-1] if said else 'it said nothing'}"


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
