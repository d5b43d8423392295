"""The interface by which long work reports progress; by default the reports are discarded."""

from __future__ import annotations

__all__ = ["SILENT", "Progress"]


class Progress:
    """Receives the progress of a stage; this class discards it.

    A stage calls `start` once, `advance` often (its fields, such as loss or images/s, are shown beside the bar), `note`
    for a line that a person should see, `keeps` before it makes what a stop leaves, and `close` at the end.
    """

    def start(self, total: int | None, what: str, *, done: int = 0) -> None:
        """`what` begins; `done` of its `total` units are done already (None: the total is unknown)."""

    def advance(self, count: int = 1, **fields: str) -> None:
        """`count` more units are done; `fields` are shown beside the bar."""

    def doing(self, what: str | None) -> None:
        """Shows `what` in place of the work's name while something else has to be done first; None: the name again."""

    def note(self, line: str) -> None:
        """One line for a person."""

    def keeps(self, what: str | None) -> None:
        """What stays if the work is stopped from now on, for the line of the stop; None: nothing.

        `what` is a clause, such as "the images drawn so far stay". The same work, begun again, goes on from there.
        """

    def close(self) -> None:
        """The work has ended."""


SILENT = Progress()
