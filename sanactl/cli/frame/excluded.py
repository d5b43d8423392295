"""The option --exclude: prompts that must not be drawn."""

from __future__ import annotations

from collections.abc import Sequence

from sanactl.cli.frame.stdin import is_stdin, prompts_of, stdin_prompts
from sanactl.cli.frame.terminal import note
from sanactl.prompts.exclusion import Excluded
from sanactl.records.prompt_tables import split_column
from sanactl.records.records import Record

__all__ = ["read_excluded"]


def read_excluded(given: Sequence[str] | None, always: Sequence[Record], called: str) -> Excluded:
    """The prompts of files, `-` for stdin, and others that are left out unless `none` is given, too.

    Args:
        given: the option's values.
        always: those others; there may be none.
        called: what a note calls them.
    """
    names = list(given or ())
    if "none" in names:
        if always:
            note(
                f"--exclude none: {called} are not left out; do not measure on them what is trained on these"
            )
        names, always = [name for name in names if name != "none"], ()
    excluded = Excluded(always)
    for name in names:
        before, (file, column) = excluded.unread, split_column(name)
        records = stdin_prompts(column) if is_stdin(file) else prompts_of(name)
        excluded.add(records)
        if unread := excluded.unread - before:
            note(
                f"--exclude {name}: {unread:,} of {len(records):,} prompts are not of GenEval's grammar; of these, only"
                " the same words are left out"
            )
    return excluded
