"""The process around a command: its standard streams, its home, its signals and its end."""

from __future__ import annotations

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
from typing import Any

from sanactl.cli.frame.terminal import safe

__all__ = ["Interrupts", "leave_at_once", "prepare"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Seconds. A launcher sends a signal to the process and to its group: the second is the same wish.
_SAME_WISH = 2.0
# Seconds after which an interrupt that a library swallowed is raised again, and one that Python says is lost.
_REMIND_AFTER = 1.0
_REMIND_LOST = 0.02
_HELP_WIDTH = 40
_SPINS = "5000"  # some tenths of a millisecond
# What progress bars of libraries send: colours, a line up, the rest of a line cleared.
_HARMLESS = re.compile(r"(\x1b\[[0-9;]*[mAK]|[\r\t])")


def prepare() -> None:
    """Makes the standard streams and the home what the program relies on. Called once, before anything is opened."""
    for descriptor in (0, 1, 2):
        # Closed by the shell (`2>&-`): the next file opened would get its number, and messages meant for people.
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
    """A file for people: what cannot be written is dropped, for no message is worth a run."""

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
    """stderr as libraries see it: their warnings and log lines quote files, so escape codes are spelled out.

    Attributes:
        uncleaned: the stream below it, for our own progress bar.
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
    """stderr in a form that never raises; left as it is where it is no file."""
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
    """Gives a user without a home one below the temporary folder: libraries would make a folder called ~ here.

    Containers and batch systems start programs under a number that no user has. A home that is set stays, if it is
    there or not: what cannot be written there is told with its name.
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
    # getpass.getuser, which torch asks for the name of a cache, knows no user without a name either.
    os.environ.setdefault("USER", str(os.getuid()))


def _wait_briefly() -> None:
    """Lets torch's threads sleep soon where they wait for each other, before torch is imported; results stay the same.

    By default GNU's OpenMP spins for milliseconds. With other work on the cores, that keeps the thread that is waited
    for from its core: an operation on two threads beside two busy processes took 4 to 7 times as long, and 2 times
    with this. Alone both take the same. Whoever has set a policy of their own keeps it.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)


class Interrupts:
    """While it is open, SIGINT and SIGTERM raise KeyboardInterrupt, so that files are closed and temporaries removed.

    An interrupt may come out of a library as another exception, or not at all: torch and safetensors turn it into a
    ValueError, an import into an ImportError, and one that hits a finaliser is printed and forgotten. So `asked` says
    that there was one, and one that was forgotten is raised again. A signal that the process was started to ignore
    (`nohup`, `&` in a script) stays ignored. Signals reach the main thread only; elsewhere this does nothing.

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
        """An exception in a finaliser or a weak reference's callback, which Python prints and forgets."""
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            self._remind(_REMIND_LOST)
        elif self._unraisable is not None:
            self._unraisable(unraisable)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        reminding, self._reminding = self._reminding, False
        if self._closed and reminding:
            return
        # Whoever handles an exception now is on the way out, and is not disturbed.
        leaving = sys.exc_info()[0] is not None
        if not self.asked:
            self.asked, self._number, self._first = True, signal.Signals(number), time.monotonic()
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
        with self._lock:  # not after the end, when the signal would meet another's handler
            if not self._closed:
                self._reminding = True
                os.kill(os.getpid(), self._number)


def leave_at_once(line: str = "") -> None:
    """Lets SIGINT and SIGTERM end the process at once with exit code 130: before the work, and after it.

    Then nothing is open that would have to be closed, and an exception would only be printed by whatever it hits.

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
