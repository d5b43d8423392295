"""Turning any error into one line and an exit code: sanactl's errors, typer's, the system's, and bugs."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterable, Sequence

from sanactl.cli.frame.terminal import safe
from sanactl.cli.frame.usage import usage_line
from sanactl.errors import SanactlError

__all__ = ["error_line", "say_traceback"]

_NO_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory")
# Distributions whose name is not the module's.
_PACKAGES = {"PIL": "pillow", "yaml": "pyyaml", "cv2": "opencv-python", "sklearn": "scikit-learn"}


def error_line(error: BaseException, arguments: Sequence[str], commands: Iterable[str]) -> tuple[int, str]:
    """The exit code and the line for an error.

    Args:
        arguments: the command line, without the program's name.
        commands: names of the program's commands.

    Returns:
        the line is empty if typer has shown the help instead of an error.
    """
    if isinstance(error, SanactlError):
        return error.exit_code, str(error)
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # typer's family of usage errors
        line = usage_line(error, arguments, commands) if error.format_message() else ""
        return int(error.exit_code), line
    if hasattr(error, "exit_code"):  # typer.Exit
        return int(error.exit_code), ""
    return 1, _line(error)


def _line(error: BaseException) -> str:
    first = next(iter(str(error).strip().splitlines()), "")[:500]
    lower = str(error).lower()
    if isinstance(error, OSError):
        return _of_system(error, first)
    if isinstance(error, MemoryError) or any(words in lower for words in _NO_MEMORY):
        return f"out of memory; a smaller --batch-size may fit, or finetune's --accumulate ({first[:200]})"
    if isinstance(error, RecursionError):
        return "something that was read is nested too deeply; --debug shows where"
    if isinstance(error, ImportError) and not (error.name or "").startswith("sanactl"):
        return _of_import(error, first)
    if isinstance(error, UnicodeError):
        return f"text that cannot be read or written: {first}; --debug shows where"
    if lower.startswith(("cuda error", "cuda driver error", "hip error")):
        return f"the GPU failed: {first}; try again, or --device cpu"
    return f"unexpected {type(error).__name__}: {first} (run with --debug for the traceback, and please report it)"


def _of_system(error: OSError, first: str) -> str:
    if error.strerror is None:
        return first or type(error).__name__
    reason = str(error.strerror)
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        reason += "; free some space, or name another disk"
    return f"{' -> '.join(names)}: {reason}" if names else reason


def _of_import(error: ImportError, first: str) -> str:
    """The line for a package that is missing or cannot be loaded."""
    name = (error.name or "").split(".")[0]
    if isinstance(error, ModuleNotFoundError) and name:
        return (
            f"this needs the package {name}, which is not installed; pip install {_PACKAGES.get(name, name)}"
        )
    return f"{name or 'a package'} cannot be imported: {first}; install it anew, or see --debug"


def say_traceback(error: BaseException) -> None:
    """Write the traceback to stderr; each line is made safe, because an error may quote a file."""
    import traceback

    with contextlib.suppress(OSError, ValueError):
        for part in traceback.format_exception(error):
            sys.stderr.write(safe(part, lines=True))
