"""The options that name a guard, and prompts through it before a command's own work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from sanactl.prompts.guard.registry import DEFAULT

if TYPE_CHECKING:
    from sanactl.files.progress import Progress
    from sanactl.prompts.guard.inside import Guarded
    from sanactl.records.records import Record

__all__ = ["GuardName", "GuardOptions", "guarded"]

GuardName = Annotated[
    Optional[str],
    typer.Option(
        "--guard",
        metavar="GUARD",
        help=f"Check the prompts first, as sanactl guard does, by a guard such as {DEFAULT}. Prompts that it blocks get "
        "no image. Default: no guard.",
        show_default=False,
    ),
]
GuardOptions = Annotated[
    Optional[list[str]],
    typer.Option(
        "--guard-option",
        metavar="KEY=VALUE",
        help="An option of --guard: policy, threshold, non_english, device, dtype. Give the option again for each further "
        "one. Default: those of sanactl guard.",
        show_default=False,
    ),
]


def guarded(
    records: Sequence[Record],
    name: str | None,
    options: Sequence[str] | None,
    progress: Progress,
    **given: Any,
) -> Guarded:
    """The prompts that pass --guard; all without one. Of several processes the first asks, and all get the answer.

    Args:
        name, options: of --guard and --guard-option.
        given: options of the guard that have a name of their own on the command line; None counts as not given.

    Raises:
        UsageError: no such guard or option.
        InputError: the guard cannot be loaded or run, or it blocks every prompt.
    """
    from pathlib import Path

    from sanactl.errors import UsageError
    from sanactl.prompts.guard.inside import Guarded, safe_prompts
    from sanactl.records.options import split_options

    split = split_options(options or (), "--guard-option")
    if name is None:
        if split:
            raise UsageError("--guard-option without --guard")
        return Guarded([*records])
    known = {k: v for k, v in given.items() if v is not None}
    return safe_prompts(
        records, name, {**known, **split}, place=Path.cwd(), tell=progress.note, progress=progress
    )
