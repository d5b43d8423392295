"""The judges that ship with sanactl."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sanactl.checkpoint.builtin import asset
from sanactl.errors import InputError, UsageError
from sanactl.judging.backends.vlm import VlmJudge
from sanactl.shapes.prompts import words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sanactl.judging.tournament import Verdict

__all__ = ["ShapesJudge", "open_builtin"]


class ShapesJudge(VlmJudge):
    """The built-in world's judge. It refuses a prompt with a word that it has never seen: its answer would mean nothing."""

    def judge(self, images: Sequence[NDArray[np.uint8]], records: Sequence[dict[str, Any]]) -> list[Verdict]:
        for record in records:
            unknown = sorted(set(_words(record["prompt"])) - set(words()))
            if unknown:
                raise InputError(
                    f"prompt {record['prompt'][:80]!r}: the built-in judge knows the built-in world alone, and not"
                    f" {unknown[0]!r}",
                    hint="name another judge with --model: the folder or Hub id of a vision-language model, such as"
                    " nvila:Efficient-Large-Model/NVILA-Lite-2B-Verifier",
                )
        return super().judge(images, records)


def _words(prompt: str) -> list[str]:
    return re.findall(r"[\w'-]+", prompt.lower())


def open_builtin(world: str, *, device: str | None = None, dtype: str | None = None) -> ShapesJudge:
    """The judge of a built-in world.

    Args:
        world: "shapes".
        device, dtype: see `VlmJudge.load`.

    Raises:
        UsageError: there is no such world.
        InputError: its files are missing or damaged.
    """
    if world != "shapes":
        raise UsageError(f"no built-in judge {world!r}", hint="there is: builtin:shapes")
    folder = asset("judge")
    if not (folder / "config.json").is_file():
        raise InputError(
            f"{folder}: the built-in judge is missing",
            hint="reinstall sanactl, or train one with train-judge",
        )
    judge: ShapesJudge = ShapesJudge.load(str(folder), device=device, dtype=dtype)
    judge.name = "builtin:shapes"
    return judge
