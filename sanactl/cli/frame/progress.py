"""Showing progress on stderr: a bar on a terminal, elsewhere a line from time to time."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from sanactl.cli.frame import stopping
from sanactl.cli.frame.board import Board, the_board
from sanactl.cli.frame.terminal import at_end, note, one_line, safe
from sanactl.files.progress import Progress

__all__ = ["open_progress"]

# A pipe's line is drawn at most this often (seconds).
REDRAW_EVERY = 0.1
# Off a terminal a line is written at most this often (seconds), so that a log stays short.
LINE_EVERY = 15.0


class _Shown(Progress):
    """What all ways of showing have in common."""

    def keeps(self, what: str | None) -> None:
        stopping.keep(what)


class BarProgress(_Shown):
    """A rich progress bar, with the stage's fields beside it."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None

    def start(self, total: int | None, what: str, *, done: int = 0) -> None:
        from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        from sanactl.cli.frame.console import PlainConsole

        self.close()
        console = PlainConsole(stderr=True)
        count = "{task.completed:,.0f}" + ("/{task.total:,.0f}" if total is not None else "")
        columns = [
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=_bar_width(console.width)),
        ]
        columns += [TextColumn(count, markup=False), TimeRemainingColumn()]
        columns.append(TextColumn("{task.fields[shown]}", markup=False))
        if console.encoding.startswith("utf"):
            columns.insert(0, SpinnerColumn())
        self._bar = Bar(
            *columns,
            console=console,
            transient=False,
            # Records may be written to a pipe while the bar is shown, so rich must not redirect stdout.
            redirect_stdout=False,
            redirect_stderr=False,
        )
        at_end(self.close)  # in every case, because the bar hides the cursor
        self._bar.start()
        self._what, self._total, self._done = safe(what), total, done
        self._task = self._bar.add_task(self._what, total=total, completed=done, shown="")

    def advance(self, count: int = 1, **fields: str) -> None:
        if self._bar is not None:
            shown = safe("  ".join(f"{k} {v}" for k, v in fields.items()))
            self._done = within(self._done + count, self._total)
            self._bar.update(self._task, completed=self._done, **({"shown": shown} if shown else {}))

    def doing(self, what: str | None) -> None:
        if self._bar is not None:
            self._bar.update(self._task, description=self._what if what is None else safe(what))

    def note(self, line: str) -> None:
        if self._bar is not None:
            self._bar.console.print(f"sanactl: {one_line(line)}", overflow="fold")
        else:
            note(line)

    def close(self) -> None:
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.stop()


def within(done: int, total: int | None) -> int:
    """What is done, at most the total. One of several processes counts for all of them, and may have more than its share."""
    return done if total is None else min(done, total)


def _bar_width(columns: int) -> int:
    """The width that leaves room for the text beside the bar."""
    return max(min(40, columns - 60), 5)


class LineProgress(_Shown):
    """A line every `LINE_EVERY` seconds, and one at the end if the work took longer than a second and was not stopped."""

    def __init__(self) -> None:
        self._open = False
        at_end(self.close)  # its last line comes before the one about an error

    def start(self, total: int | None, what: str, *, done: int = 0) -> None:
        self.close()
        self._total, self._what, self._done = total, what, done
        self._fields: dict[str, str] = {}
        self._started = self._last = time.monotonic()
        self._printed = done
        self._open = True

    def advance(self, count: int = 1, **fields: str) -> None:
        self._done = within(self._done + count, self._total)
        self._fields = fields or self._fields
        if self._open and time.monotonic() - self._last >= LINE_EVERY:
            self._last = time.monotonic()
            self._print()

    def _print(self) -> None:
        self._printed = self._done
        of = f"/{self._total:,}" if self._total is not None else ""
        shown = "  ".join(f"{k} {v}" for k, v in self._fields.items())
        seconds = time.monotonic() - self._started
        self.note(f"{self._what}: {self._done:,}{of}  {seconds:.0f} s  {shown}".rstrip())

    def note(self, line: str) -> None:
        note(line)

    def close(self) -> None:
        seconds = time.monotonic() - self._started if self._open else 0
        if seconds > 1 and self._done > self._printed and not stopping.is_asked():
            self._print()
        self._open = False


class BoardProgress(_Shown):
    """A status line among those of a pipe's other commands; it begins with the first unit."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._open = False

    def start(self, total: int | None, what: str, *, done: int = 0) -> None:
        self._total, self._what, self._done, self._first = total, what, done, done
        self._fields: dict[str, str] = {}
        self._started = time.monotonic()
        self._drawn = 0.0
        self._open = True

    def advance(self, count: int = 1, **fields: str) -> None:
        self._done = within(self._done + count, self._total)
        self._fields = fields or self._fields
        if self._open and time.monotonic() - self._drawn >= REDRAW_EVERY:
            self._drawn = time.monotonic()
            self._board.show(self._line())

    def doing(self, what: str | None) -> None:
        if self._open and what is not None:
            self._board.show(what)

    def _line(self) -> str:
        count = f"{self._done:,}" + (f"/{self._total:,}" if self._total is not None else "")
        parts = [f"{self._what} {count}"]
        seconds = time.monotonic() - self._started
        if self._total and self._first < self._done < self._total and seconds > 1:
            left = seconds * (self._total - self._done) / (self._done - self._first)
            parts.append(f"{left / 60:.0f} min left" if left > 90 else f"{left:.0f} s left")
        return "  ".join([*parts, *(f"{key} {value}" for key, value in self._fields.items())])

    def note(self, line: str) -> None:
        note(line)

    def close(self) -> None:
        if self._open:
            self._board.show("")
        self._open = False


def open_progress() -> Progress:
    """A line on the board in a pipe, a bar if stderr is a terminal that can move its cursor, else lines."""
    if (board := the_board()) is not None:
        return BoardProgress(board)
    drawn = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    return BarProgress() if drawn else LineProgress()
