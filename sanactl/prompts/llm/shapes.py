"""The rules of the built-in world in a language model's place: exact, and without cost."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from sanactl.errors import InputError, UsageError
from sanactl.prompts.llm.protocol import Ask, Reply
from sanactl.shapes.languages import FORMS, detail, translate

__all__ = ["ShapesRules"]


class ShapesRules:
    """Translates prompts of the built-in world, and adds detail to them (`sanactl.shapes.languages`).

    Raises:
        UsageError: something follows the name.
    """

    name = "shapes"
    batch_size = concurrency = 1
    keeps = False
    identity: Mapping[str, Any] = {"name": "shapes"}

    def __init__(self, rest: str = "") -> None:
        if rest:
            raise UsageError(f"no language model 'shapes:{rest}'", hint="shapes takes nothing after its name")

    def check(self, tasks: Sequence[str]) -> None:
        known = (*FORMS, "detail")
        for task in tasks:
            if task not in known:
                raise UsageError(
                    f"the rules of the built-in world have no {task}, only {', '.join(known)}",
                    hint="--llm names a language model",
                )

    def reply(self, asks: Sequence[Ask], stop: threading.Event) -> list[Reply]:
        return [_reply(ask) for ask in asks]


def _reply(ask: Ask) -> Reply:
    try:
        return Reply(detail(ask.prompt) if ask.task == "detail" else translate(ask.prompt, ask.task))
    except InputError as error:
        return Reply("", refusal=error.message)
