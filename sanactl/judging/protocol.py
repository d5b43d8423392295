"""The interface of judges."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from sanactl.judging.tournament import Verdict

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Judge", "Pair", "judge_flops"]


# Two images of one prompt, in the order in which they are shown.
Pair = tuple["NDArray[np.uint8]", "NDArray[np.uint8]"]


class Judge(Protocol):
    """Looks at images, each with the prompt record that it was made for.

    Attributes:
        name: what records call this judge.

    A judge can also have
        `notice`: a line that the user sees when it has been opened, such as its licence;
        `gives_labels`: True for a detector whose verdicts are the labels that scores are made from;
        `reads`: the names of the record's fields that its verdicts depend on. Without it they may depend on all fields
        but `path`, so that a kept verdict is used for an equal record alone (`sanactl.judging.cache`);
        `choose(pairs, records)`: one verdict for each pair of images of a prompt; a yes says that the first of the two
        fits the prompt better (`eval judge --pairs`). None for a judge that cannot compare;
        `flops(height, width)`: the FLOPs of judging one image of this size, or None where they are not known.
    """

    name: str

    @property
    def identity(self) -> Mapping[str, Any]:
        """Everything except image and record that its verdicts depend on, as JSON: weights, dtype, device, dialogue."""

    def judge(self, images: Sequence[NDArray[np.uint8]], records: Sequence[dict[str, Any]]) -> list[Verdict]:
        """One verdict for each image, which does not depend on the other images.

        Args:
            images: uint8 [height, width, 3], RGB; sizes may differ.
            records: one for each image, with `prompt` (and, for the oracle, GenEval's `tag` and `include`).

        Raises:
            InputError: an image or a record is one that this judge cannot take.
        """


def judge_flops(judge: Judge, height: int, width: int) -> float | None:
    """FLOPs of judging one image of this size in pixels; None for a judge that does not know them."""
    count: Callable[[int, int], float | None] | None = getattr(judge, "flops", None)
    return None if count is None else count(height, width)
