"""The line of a command that is stopped: one line, which also says what is kept.

What is kept is known before the stop. An interrupt may come out as another exception, or in code that knows nothing of
the work, so nothing is said on the way: `main` says it at the end.
"""

from __future__ import annotations

import sys

__all__ = ["ask", "begin", "is_asked", "keep", "line"]

_asked = False
_kept: str | None = None


def begin() -> None:
    """A command begins: nothing is kept yet, and nobody asked it to stop."""
    global _asked, _kept
    _asked, _kept = False, None


def ask() -> None:
    """A signal asks the command to stop."""
    global _asked
    _asked = True


def is_asked() -> bool:
    """Whether the command is to stop. Its progress needs no last line then."""
    return _asked or isinstance(sys.exc_info()[1], KeyboardInterrupt)


def keep(what: str | None) -> None:
    """Note what stays if the command is stopped from now on ("the images drawn so far stay"); None: nothing."""
    global _kept
    _kept = what


def line() -> str:
    """What a stopped command says."""
    return (
        "interrupted" if _kept is None else f"interrupted; {_kept}, and the same command goes on from there"
    )
