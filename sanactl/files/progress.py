"""Progress of long work: discarded by default, a bar on the command line."""

from __future__ import annotations

__all__ = ["SILENT", "Progress"]


class Progress:
    """The sink for progress that stages write to; this one discards everything.

    A stage calls `start` once, `advance` often (fields are shown beside the bar: loss, images/s), `note` for a line
    that a person should see, and `close` at the end.
    """

    def start(self, total: int | None, what: str, *, done: int = 0) -> None:
        """Begins `what`, of which `done` out of `total` units are there already (total None: unknown)."""

    def advance(self, count: int = 1, **fields: str) -> None:
        """`count` more units are done."""

    def note(self, line: str) -> None:
        """One line for a person."""

    def close(self) -> None:
        """The work has ended."""


SILENT = Progress()
