"""The judges that ship with sanactl."""

from __future__ import annotations

from sanactl.checkpoint.builtin import asset
from sanactl.errors import InputError, UsageError
from sanactl.judging.backends.vlm import VlmJudge

__all__ = ["open_builtin"]


def open_builtin(world: str, *, device: str | None = None, dtype: str | None = None) -> VlmJudge:
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
    judge = VlmJudge.load(str(folder), device=device, dtype=dtype)
    judge.name = "builtin:shapes"
    return judge
