"""Writing to stdout: records in UTF-8 for every locale, text in the terminal's encoding, and readers that leave."""

from __future__ import annotations

import contextlib
import os
import select
import stat
import sys

from sanactl.cli.frame.terminal import drawable, is_first_process, json_for_terminal, safe
from sanactl.errors import SanactlError

__all__ = ["reader_left", "silence_stdout", "stdout_is_piped", "write_line", "write_text"]

_silenced = False


def stdout_is_piped() -> bool:
    """Whether another command reads stdout."""
    try:
        return stat.S_ISFIFO(os.fstat(1).st_mode)
    except (OSError, ValueError):
        return False


def write_line(line: str) -> None:
    """Write one line of JSON to stdout and flush it.

    Raises:
        BrokenPipeError: nobody reads it any more.
        SanactlError: it cannot be written for another reason, such as a full disk behind `>`.
    """
    if sys.stdout.isatty():
        line = json_for_terminal(line, sys.stdout.encoding)
    _write(line + "\n", "utf-8")


def write_text(line: str) -> None:
    """Write one line of text to stdout, made safe, in the encoding of the terminal or file.

    Raises:
        BrokenPipeError, SanactlError: as `write_line`.
    """
    encoding = sys.stdout.encoding or "utf-8"
    _write(drawable(safe(line), encoding) + "\n", encoding)


def _write(text: str, encoding: str) -> None:
    if not is_first_process():
        return
    if sys.__stdout__ is None and getattr(sys.stdout, "name", None) == os.devnull:
        raise SanactlError("cannot write to stdout: it is closed")
    try:
        if _same(encoding, sys.stdout.encoding):
            sys.stdout.write(text)
        else:
            sys.stdout.flush()
            sys.stdout.buffer.write(text.encode(encoding))
        sys.stdout.flush()
    except BrokenPipeError:
        silence_stdout()
        raise
    except OSError as error:
        silence_stdout()
        raise SanactlError(f"cannot write to stdout: {(error.strerror or str(error)).lower()}") from error


def _same(one: str, other: str | None) -> bool:
    return other is None or one.lower().replace("-", "") == other.lower().replace("-", "")


def silence_stdout() -> None:
    """Discard the remaining output; otherwise the interpreter would fail again when it exits."""
    global _silenced
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        return
    _silenced = True
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def reader_left(error: BaseException) -> bool:
    """Whether an error means that stdout's reader has left. A broken pipe elsewhere is an ordinary failure."""
    if isinstance(error, SystemExit):  # how rich ends a program whose reader has left
        return isinstance(error.__context__, BrokenPipeError)
    return isinstance(error, BrokenPipeError) and (_silenced or _is_broken())


def _is_broken() -> bool:
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), select.POLLOUT)
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    except (OSError, ValueError, AttributeError):  # no file, or a system without poll
        return True
