"""Which of the captions that `encode` stored are trained with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sanactl.data.captions import CaptionChoice, find_columns
from sanactl.data.scored_captions import ScoredChoice, ScoreRule, parse_caption_choice
from sanactl.errors import InputError

__all__ = ["check_scored_columns", "encoded_choice"]


def check_scored_columns(settings: Mapping[str, Any], columns: int, where: str) -> None:
    """Checks what an index says of scores: `caption_choice`, and `scored`, of each score of a row the caption's column.

    Raises:
        InputError: there is no such column.
    """
    scored, rule = settings.get("scored", []), settings.get("caption_choice", "")
    sound = isinstance(scored, list) and all(type(n) is int and 0 <= n < columns for n in scored)
    if not sound or not isinstance(rule, str) or bool(scored) != bool(rule):
        raise InputError(f"{where}: impossible scores of captions in its settings")


def encoded_choice(
    stored: CaptionChoice,
    settings: Mapping[str, Any],
    name: str,
    captions: str | None,
    rule: ScoreRule | None,
) -> tuple[CaptionChoice, list[int]]:
    """What is asked for: by scores with a rule, by weight with `--captions` alone, and without both as it was encoded.

    Args:
        stored: the columns with their weights.
        settings: of the index.
        name: of the data, for errors.
        captions: what `--captions` says, or None.
        rule: of `--caption-choice`, or None.

    Returns:
        the choice, and which of a row's scores it needs.

    Raises:
        InputError: a column is not there, or has no scores.
    """
    scored: list[int] = settings.get("scored", [])
    chosen = stored if captions is None else find_columns(stored.columns, captions, name)
    if rule is None and scored and captions is None:
        rule = parse_caption_choice(settings["caption_choice"])
    if rule is None:
        return chosen, []
    names = [stored.columns[column] for column in scored]
    numbers = [number for number, column in enumerate(names) if column in chosen.columns]
    if not numbers:
        raise InputError(
            f"{name}: --caption-choice {rule}: was encoded without scores of its captions",
            hint="encode again with --caption-choice",
        )
    columns = tuple(chosen.columns.index(names[number]) for number in numbers)
    return ScoredChoice(chosen.columns, (1.0,) * len(chosen.columns), rule, columns), numbers
