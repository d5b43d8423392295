"""Preparing the process of a command: standard streams, home folder, signals."""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import re
import shutil
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

from sanactl.cli.frame import stopping
from sanactl.cli.frame.terminal import safe

__all__ = ["Interrupts", "end", "ignore_at_exit", "leave_at_once", "prepare"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Seconds. A launcher sends a signal to the process and to its group; a second signal within this time is the same one.
_SAME_WISH = 2.0
# Seconds after which a lost interrupt is raised again: one that a library caught, and one that Python reports as lost.
_REMIND_AFTER = 1.0
_REMIND_LOST = 0.02
_HELP_WIDTH = 40
_SPINS = "5000"  # some tenths of a millisecond
# Escape codes of libraries' progress bars: colours, a line up, clear the rest of a line.
_HARMLESS = re.compile(r"(\x1b\[[0-9;]*[mAK]|[\r\t])")


def prepare() -> None:
    """Prepare the standard streams and the home folder. It is called once, before any file is opened."""
    for descriptor in (0, 1, 2):
        # Closed by the shell (`2>&-`): the next opened file would get its number, and messages would be written into it.
        with contextlib.suppress(OSError):
            _reserve(descriptor)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Tables and help show ? for what the terminal's encoding lacks; records are written as UTF-8 in any case.
        sys.stdout.reconfigure(errors="replace")
    sys.stderr = _people(sys.stderr)
    if shutil.get_terminal_size().columns < _HELP_WIDTH:
        os.environ.setdefault("TERMINAL_WIDTH", str(_HELP_WIDTH))  # typer's own; its tables need that much
    _settle_home()
    _wait_briefly()


def _reserve(descriptor: int) -> None:
    try:
        os.fstat(descriptor)
    except OSError:
        opened = os.open(os.devnull, os.O_RDWR)
        if opened != descriptor:
            os.dup2(opened, descriptor)
            os.close(opened)


class _Unfailing(io.RawIOBase):
    """A file for messages. A message that cannot be written is dropped, so that it does not end the run."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, data: Any) -> int:
        left = memoryview(data).cast("B")
        size = len(left)
        with contextlib.suppress(OSError):
            while left:
                left = left[os.write(self._descriptor, left) :]
        return size


class _People(io.TextIOWrapper):
    """stderr for libraries: escape codes are spelled out, because warnings and log lines may quote files.

    Attributes:
        uncleaned: the stream below it, for sanactl's own progress bar.
    """

    uncleaned: io.TextIOWrapper | None = None

    def write(self, text: str) -> int:
        if self.uncleaned is None:
            return super().write(text)
        kept = _HARMLESS.split(text)  # text, a harmless code, text, ...
        kept[::2] = [safe(part, lines=True) for part in kept[::2]]
        self.uncleaned.write("".join(kept))
        return len(text)


def _people(stream: Any) -> Any:
    """stderr in a form that never raises; unchanged if it is not a file."""
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError, AttributeError):
        return stream
    with contextlib.suppress(OSError, ValueError):
        stream.flush()

    def opened() -> _People:
        return _People(
            _Unfailing(descriptor),  # type: ignore[arg-type]
            encoding=stream.encoding,
            errors="backslashreplace",
            write_through=True,
        )

    outer = opened()
    if os.isatty(descriptor):
        outer.uncleaned = opened()
    return outer


def _settle_home() -> None:
    """Give a user without a home folder one below the temporary folder; libraries would make a folder called ~ here.

    Containers and batch systems start programs with a user number that no user has. A home that is set is not changed,
    even if it does not exist; errors then name it.
    """
    if os.path.expanduser("~") != "~":
        return
    import tempfile

    home = os.path.join(tempfile.gettempdir(), f"sanactl-home-{os.getuid()}")
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(home, 0o700)
        found = os.lstat(home)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
            home = tempfile.mkdtemp(prefix="sanactl-home-")
    except OSError:
        return
    os.environ["HOME"] = home
    # torch names a cache by getpass.getuser, which also fails for a user without a name.
    os.environ.setdefault("USER", str(os.getuid()))


def _wait_briefly() -> None:
    """Make torch's waiting threads sleep early; called before torch is imported. Results do not change.

    By default, GNU's OpenMP spins for milliseconds while it waits. If the cores have other work, the spinning threads
    slow down the thread that they wait for: beside two busy processes, an operation on two threads took 4 to 7 times as
    long, and with this setting 2 times. On an idle machine there is no difference. A user's own policy is kept.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)


class Interrupts:
    """A context in which SIGINT and SIGTERM raise KeyboardInterrupt, so that files are closed and temporary files removed.

    A library may turn an interrupt into another exception or lose it: torch and safetensors raise a ValueError, an import
    raises an ImportError, and in a finaliser Python prints it and continues. So `asked` tells whether there was one, and
    a lost one is raised again. Signals that were ignored when the process started (`nohup`, `&` in a script) stay
    ignored. Signals reach the main thread only; in other threads this does nothing.

    Attributes:
        asked: whether a signal came.
    """

    def __init__(self) -> None:
        self.asked = False
        self._number = signal.SIGINT
        self._first = 0.0
        self._reminding = self._closed = False
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._before: dict[int, Any] = {}
        self._unraisable: Callable[[Any], object] | None = None

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._interrupt)
            self._unraisable = sys.unraisablehook
            sys.unraisablehook = self._lost
        return self

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._unraisable is not None:
            sys.unraisablehook = self._unraisable

    def _lost(self, unraisable: Any) -> None:
        """Handle an exception in a finaliser or a weak reference's callback; Python would only print it."""
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            self._remind(_REMIND_LOST)
        elif self._unraisable is not None:
            self._unraisable(unraisable)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        reminding, self._reminding = self._reminding, False
        if self._closed and reminding:
            return
        # If an exception is being handled, the program is ending already.
        leaving = sys.exc_info()[0] is not None
        if not self.asked:
            self.asked, self._number, self._first = True, signal.Signals(number), time.monotonic()
            stopping.ask()
        elif leaving and (reminding or time.monotonic() - self._first < _SAME_WISH):
            self._remind()
            return
        self._remind()
        raise KeyboardInterrupt

    def _remind(self, after: float = _REMIND_AFTER) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = threading.Timer(after, self._again)
        self._timer.daemon = True
        self._timer.start()

    def _again(self) -> None:
        with self._lock:  # not after the end, when another handler would get the signal
            if not self._closed:
                self._reminding = True
                os.kill(os.getpid(), self._number)


def end(code: int) -> NoReturn:
    """End this process with the exit code `code`, after its exit handlers.

    One of several processes then ends without Python's last steps: in these, threads of gloo sometimes abort a process
    whose work is done ("terminate called without an active exception", exit code -6).
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        sys.exit(code)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def ignore_at_exit() -> None:
    """Ignore SIGINT and SIGTERM in the interpreter's last steps, after all exit handlers.

    Python restores the default action there, so a signal would end the process with another exit code than its work has.
    Call it first: exit handlers run in reverse order.
    """

    def ignore() -> None:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    atexit.register(ignore)


def leave_at_once(line: str = "") -> None:
    """Make SIGINT and SIGTERM end the process immediately with exit code 130. It is used before and after the work.

    No file is open then, and an exception would only cause a traceback.

    Args:
        line: to write on stderr.
    """

    def leave(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(OSError):
            os.write(2, line.encode())
        os._exit(130)

    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, leave)
