"""A judge from what a caller of the functions says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sanactl.errors import UsageError

if TYPE_CHECKING:
    from sanactl.judging.protocol import Judge

__all__ = ["chosen_judge"]


def chosen_judge(
    model: str | Judge | None,
    judges: Sequence[str] | None,
    judge_options: Mapping[str, Any] | None,
    **options: Any,
) -> Judge:
    """The judge that is named or given, opened.

    Args:
        model, judges, judge_options: of `sanactl.judge`.
        options: the function's own options of a judge; None and False count as not given.

    Raises:
        UsageError: no such judge or option; or options for a judge that is open already.
        InputError: the judge cannot be loaded.
    """
    from sanactl.judging.registry import DEFAULT, open_judges

    if model is not None and judges:
        raise UsageError("model and judges exclude each other", hint="name all of them in judges")
    given = {name: value for name, value in options.items() if value not in (None, False)}
    if twice := sorted(set(given) & set(judge_options or ())):
        raise UsageError(f"the judge's {twice[0]} is given twice", hint="leave it out of judge_options")
    if model is None or isinstance(model, str):
        return open_judges(judges or [model or DEFAULT], **given, **(judge_options or {}))
    if given or judge_options:
        raise UsageError("an opened judge takes no options", hint="give them where it is opened")
    return model
