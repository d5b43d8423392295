"""Running the parts of a measurement one after the other, each in a process of its own with a time limit.

A crash, a lack of memory or a hang ends only its own part, and the part's earlier rows are on the disk already.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sanactl.bench.rows import FAULTS, PARTS, Rows, done_parts, read_rows, tables

__all__ = ["Part", "Results", "heed_alarm", "run_parts"]

# Seconds: reserved at the end for the last table; and the least time for starting a part.
_RESERVE, _LEAST = 3.0, 5.0
_ALARM = "SANACTL_BENCH_ALARM"


@dataclass(frozen=True)
class Part:
    """A part of a measurement: its name, its time limit in seconds, and the arguments of its Python process."""

    name: str
    seconds: float
    command: Sequence[str]
    environment: tuple[tuple[str, str], ...] = ()


class Results:
    """The folder of results: `results.jsonl`, the same rows as `table.md`, and the parts' output in `log.txt`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.rows, self.table, self.log = (folder / n for n in ("results.jsonl", "table.md", "log.txt"))
        self._shown = len(read_rows(self.rows))

    def refresh(self, say: Callable[[str], None]) -> None:
        """Write the table again if there are new rows, and print these rows."""
        rows = read_rows(self.rows)
        if len(rows) == self._shown:
            return
        for row in rows[self._shown :]:
            say("  " + ", ".join(f"{k} {_short(v)}" for k, v in row.items() if k != "part" and v is not None))
        self._shown = len(rows)
        temporary = self.table.with_name(f".{self.table.name}.tmp")
        temporary.write_text(tables(rows), encoding="utf-8")
        temporary.replace(self.table)


def run_parts(
    parts: Sequence[Part],
    results: Results,
    *,
    seconds: float,
    on: str = "",
    say: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
) -> bool:
    """Run the parts in order until all are done or the time is over.

    A part that was done to its end gets a row that says so, and is not run again on the same device. A part that fails,
    does not end in time, or cannot start in time gets a row in the table "faults".

    Args:
        seconds: for all parts.
        on: the name of the device.

    Returns:
        whether every part was done.
    """
    started = time.monotonic()
    end = started + seconds - _RESERVE
    whole, done = True, done_parts(read_rows(results.rows), on)
    for part in parts:
        if part.name in done:
            say(f"{part.name}: was done before")
            continue
        rows, left = Rows(results.rows, part.name), end - time.monotonic()
        if left < _LEAST:
            fault: str | None = "left out: no time was left"
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
    say(f"{time.monotonic() - started:.0f} s; {results.table}")
    return whole


def heed_alarm() -> None:
    """Called by a part; it ends the part in time even if the process that started it has ended."""
    seconds = int(os.environ.get(_ALARM, "0"))
    if seconds and hasattr(signal, "alarm"):
        signal.alarm(seconds)


def _run(part: Part, results: Results, seconds: float, say: Callable[[str], None]) -> str | None:
    """Run one part; returns its fault, or None."""
    end = time.monotonic() + seconds
    environment = {**os.environ, **dict(part.environment), "PYTHONUNBUFFERED": "1"}
    # The alarm ends a part whose parent was killed, one second after the parent's own limit.
    environment[_ALARM] = str(int(seconds) + 1)
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
            process.wait()
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
