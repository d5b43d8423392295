"""What every judge can do, and how one is opened by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from sanactl.checkpoint.builtin import asset
from sanactl.errors import InputError
from sanactl.judging.tournament import Verdict

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["BUILTIN_JUDGE", "Judge", "open_judge"]

BUILTIN_JUDGE = "builtin:shapes"


class Judge(Protocol):
    """Looks at images, each with the prompt record that it was made for."""

    name: str

    @property
    def identity(self) -> Mapping[str, Any]:
        """Whatever its verdicts depend on besides image and record, as JSON: weights, dtype, device."""

    def judge(self, images: Sequence[NDArray[np.uint8]], records: Sequence[dict[str, Any]]) -> list[Verdict]:
        """One verdict an image.

        Args:
            images: uint8 [height, width, 3], RGB; sizes may differ.
            records: one for each image, with `prompt` (and, for the oracle, GenEval's `tag` and `include`).
        """


def open_judge(
    reference: str | None = None,
    *,
    device: str | None = None,
    dtype: str | None = None,
    trust_remote_code: bool = False,
) -> Judge:
    """Opens a judge.

    Args:
        reference: None or "builtin:shapes" for the judge that ships with sanactl; "oracle" for the built-in world's
            detector with GenEval's rules; else the folder or Hub id of a vision-language model.
        device, dtype: for a model; by default the GPU in bfloat16 if there is one, else the CPU in float32.
        trust_remote_code: run the model repository's own code, which some models need.

    Raises:
        InputError: there is no such judge, or it cannot be loaded.
    """
    if reference == "oracle":
        from sanactl.judging.backends.oracle import OracleJudge

        return OracleJudge()
    from sanactl.judging.backends.vlm import VlmJudge

    if reference is None or reference == BUILTIN_JUDGE:
        folder = asset("judge")
        if not (folder / "config.json").is_file():
            raise InputError(
                f"{folder}: the built-in judge is missing", hint="reinstall sanactl, or train-judge one"
            )
        judge = VlmJudge.load(str(folder), device=device, dtype=dtype)
        judge.name = BUILTIN_JUDGE
        return judge
    return VlmJudge.load(reference, device=device, dtype=dtype, trust_remote_code=trust_remote_code)
