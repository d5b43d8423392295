"""Counting images that cannot be read, and the limit for skipping them."""

from __future__ import annotations

from sanactl.errors import InputError

__all__ = ["check_bad"]


def check_bad(count: int, max_bad: int, error: InputError) -> None:
    """Raises for an unreadable image that is one too many.

    Raises:
        InputError: it names the image and the option.
    """
    if count <= max_bad:
        return
    if max_bad == 0:
        raise InputError(
            error.message, hint=error.hint or "--max-bad N skips up to N unreadable images"
        ) from error
    raise InputError(
        f"{error.message}; {count} images cannot be read, and --max-bad allows {max_bad}",
        hint="raise --max-bad, or repair the data",
    ) from error
