"""One status line for each command of a pipe, on the terminal that they share.

The commands of a pipe are processes of one process group, and all of them write to one terminal. Two progress bars would
draw over each other. So each command writes its line into a small shared file, and draws all lines again while it has the
file's lock. Messages go above the lines. The lines disappear at the end.

If something is missing (no terminal, no folder for temporary files, a damaged file), messages are written without lines.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sanactl.cli.frame.terminal import at_end, clip, drawable, safe, write_above

__all__ = ["Board", "join_board", "leave_board", "the_board"]

_MOST_STAGES = 32
_MOST_BYTES = 1 << 16


@dataclass
class _State:
    """The state that the commands of a pipe share.

    Attributes:
        rows: number of terminal lines above the cursor that are drawn now.
        lines: process id to [command, text]; a text of "" is not drawn.
        closed: whether the last command has begun to show its result; then no more lines are drawn.
    """

    rows: int = 0
    lines: dict[str, list[str]] = field(default_factory=dict)
    closed: bool = False


class Board:
    """The status lines of a pipe, for one of its commands.

    Args:
        command: this command's name.
        path: the file that the commands share.
    """

    def __init__(self, command: str, path: Path) -> None:
        self.command, self._path = command, path
        self._text = ""

    def show(self, text: str) -> None:
        """Set this command's line; "" removes it."""
        self._text = text
        self._draw()

    def above(self, line: str) -> None:
        """Writes a message above the lines."""
        self._draw(line)

    def settle(self) -> None:
        """Remove all lines for good, because this command begins to show its result."""
        self._text = ""
        self._draw(closing=True)

    def leave(self) -> None:
        """Remove this command's line, and the file if no other command uses it."""
        self._text = ""
        with contextlib.suppress(OSError), self._locked() as state:
            state.lines.pop(str(os.getpid()), None)
            self._paint(state, None)
            if not state.lines:
                self._path.unlink(missing_ok=True)

    def _draw(self, message: str | None = None, *, closing: bool = False) -> None:
        try:
            with self._locked() as state:
                state.lines[str(os.getpid())] = [self.command, self._text]
                state.closed |= closing
                self._paint(state, message)
        except OSError:
            if message is not None:
                _write(message + "\n")

    def _paint(self, state: _State, message: str | None) -> None:
        columns, lines = shutil.get_terminal_size((80, 24))
        texts = [] if state.closed else [(name, text) for name, text in state.lines.values() if text]
        texts = texts[-max(lines - 2, 1) :]
        width = max((len(name) for name, _ in texts), default=0)
        # A line that is too long would take two rows, and the next drawing would begin in the wrong place.
        drawn = [clip(safe(f"{name:{width}}  {text}"), max(columns - 1, 8)) for name, text in texts]
        # Erase the old lines; the cursor is at the beginning of the line below them.
        out = f"\r\x1b[{state.rows}A\x1b[J" if state.rows else ""
        out += "".join(f"{line}\n" for line in ([message] if message is not None else []) + drawn)
        state.rows = len(drawn)
        if out:
            _write(out)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[_State]:
        """The shared state, read and written back under the file's lock."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(self._path, flags, 0o600), "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            state = _read(file.read(_MOST_BYTES))
            alive = {pid: line for pid, line in state.lines.items() if _is_alive(int(pid))}
            state.lines = dict(sorted(alive.items(), key=lambda entry: int(entry[0]))[:_MOST_STAGES])
            yield state
            file.seek(0)
            file.truncate()
            file.write(json.dumps(vars(state)).encode())


def _read(data: bytes) -> _State:
    """The state in a file; a damaged file is an empty one."""
    try:
        found: Any = json.loads(data)
        lines = {str(int(pid)): [str(line[0]), str(line[1])] for pid, line in found["lines"].items()}
        rows = int(found["rows"])
        return _State(rows if 0 <= rows <= _MOST_STAGES else 0, lines, bool(found["closed"]))
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        return _State()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def _write(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        stream = getattr(sys.stderr, "uncleaned", None) or sys.stderr
        stream.write(drawable(text, stream.encoding))
        stream.flush()


_board: Board | None = None


def the_board() -> Board | None:
    """The board of this process's pipe, or None."""
    return _board


def join_board(command: str) -> None:
    """Join the board of a pipe, if this process is in a pipe that shares a terminal."""
    global _board
    if _board is not None or not _in_pipe():
        return
    with contextlib.suppress(OSError):
        terminal = os.fstat(2).st_rdev
        _board = Board(command, _folder() / f"pipe-{os.getpgrp()}-{terminal}")
        write_above(_board.above, f"sanactl {command}: ")
        at_end(leave_board)


def leave_board() -> None:
    """Leave the board."""
    global _board
    board, _board = _board, None
    if board is not None:
        write_above(None)
        board.leave()


def _in_pipe() -> bool:
    """Whether stderr is a terminal that can move its cursor, and stdin or stdout is a pipe."""
    try:
        if not sys.stderr.isatty() or os.environ.get("TERM", "dumb") == "dumb":
            return False
        return any(stat.S_ISFIFO(os.fstat(stream).st_mode) for stream in (0, 1))
    except (OSError, ValueError):
        return False


def _folder() -> Path:
    """A folder for the shared files that no other user can write to.

    Raises:
        OSError: there is none.
    """
    folder = Path(tempfile.gettempdir()) / f"sanactl-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise PermissionError(f"{folder} belongs to another user")
    return folder
