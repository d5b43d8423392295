"""The errors that sanactl raises on purpose.

Library code raises these; `sanactl.cli` turns each into one line on stderr and an exit code. Anything else that
escapes is a bug and is reported as one.
"""

from __future__ import annotations

__all__ = ["InputError", "OutputExistsError", "SanactlError", "TrainingError", "UsageError", "without_stop"]


def without_stop(text: str) -> str:
    """A library's or a server's sentence without its final stop, for a line that goes on after it."""
    return text if text.endswith("..") else text.removesuffix(".")


class SanactlError(Exception):
    """The base of sanactl's errors: one line that names the file or value at fault.

    Args:
        message: what is wrong, with which file or value.
        hint: what the user can do about it, or None.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{without_stop(self.message)}; {self.hint}" if self.hint else self.message


class UsageError(SanactlError, ValueError):
    """The command line or a function's arguments are wrong (exit code 2)."""

    exit_code = 2


class InputError(SanactlError, ValueError):
    """A file, record or model that was read is missing, damaged or of the wrong kind (exit code 1)."""


class OutputExistsError(UsageError):
    """The output is already there and `--force` was not given (exit code 2)."""


class TrainingError(SanactlError):
    """Training cannot go on: NaN, divergence, no usable data (exit code 1)."""
