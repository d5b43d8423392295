"""Questions about the built-in world's pictures, answered by its detector."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sanactl.errors import InputError, UsageError
from sanactl.scoring.detectors.protocol import Detected
from sanactl.scoring.detectors.shapes import ShapesDetector
from sanactl.scoring.geneval.rules import CONFIDENCE, kept_objects, relations
from sanactl.scoring.questions.protocol import NUMBERS, Asked, spellings
from sanactl.shapes.vocabulary import COLORS, PLURALS, RELATIONS, SHAPES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["ShapesAnswers"]

_SINGULAR = {word: shape for shape in SHAPES for word in (shape, PLURALS[shape])}
_SHAPE = f"({'|'.join(sorted(_SINGULAR, key=len, reverse=True))})"
_COLOR = f"({'|'.join(COLORS)})"
_IN = r"(?: in (?:the|this) (?:image|picture|photo))?"
_THERE = re.compile(rf"(?:is|are) there (?:an? |any )?(?:{_COLOR} )?{_SHAPE}{_IN}")
_COUNT = re.compile(rf"are there ({'|'.join(NUMBERS)}) (?:{_COLOR} )?{_SHAPE}{_IN}")
_IS_COLOR = re.compile(rf"(?:is|are) the {_SHAPE} {_COLOR}")
_IS_PLACED = re.compile(
    rf"is the (?:{_COLOR} )?{_SHAPE} (?:to the )?({'|'.join(RELATIONS)}) the (?:{_COLOR} )?{_SHAPE}"
)
_HOW_MANY = re.compile(rf"how many (?:{_COLOR} )?{_SHAPE} are (?:there|in the (?:image|picture|photo)){_IN}")


class ShapesAnswers:
    """The built-in world's VQA: a program, right about what its detector finds. Probabilities are 0 and 1.

    It knows "Is there a red circle?", "Are there two stars?", "Is the circle red?", "Is the star above the red circle?"
    and "How many circles are there?", with the world's shapes, colours and relations.

    Args:
        spec: its name.
        device, dtype: without effect.
        options: none are known.

    Raises:
        UsageError: there are options.
    """

    digest = None
    batch_size = 64

    def __init__(
        self,
        spec: str = "shapes",
        *,
        device: str | None = None,
        dtype: str | None = None,
        options: Mapping[str, str] | None = None,
    ) -> None:
        if options:
            raise UsageError(f"the VQA {spec} has no options")
        self.detector = ShapesDetector()
        self.label = f"oracle:{self.detector.label}"
        self.identity: dict[str, Any] = {"label": self.label}

    def answer(self, image: NDArray[np.uint8], asked: Sequence[Asked]) -> list[tuple[float, ...]]:
        """See `Answerer.answer`."""
        try:
            (found,) = self.detector.detect([image], self.detector.classes)
        except ValueError as error:
            raise InputError(str(error)) from None
        objects = kept_objects(found, CONFIDENCE)
        results = []
        for one in asked:
            true = spellings(_answer(one.question, objects))
            results.append(tuple(float(bool({*spellings(a)} & {*true})) for a in one.answers))
        return results


def _answer(question: str, objects: Mapping[str, Sequence[Detected]]) -> str:
    """The answer in lower case."""
    text = " ".join(question.lower().split()).rstrip("?. ")

    def named(shape: str, color: str | None) -> list[Detected]:
        found = objects.get(_SINGULAR[shape], ())
        return [d for d in found if color in (None, d.color)]

    if match := _HOW_MANY.fullmatch(text):
        count = len(named(match[2], match[1]))
        return NUMBERS[count] if count < len(NUMBERS) else str(count)
    if match := _COUNT.fullmatch(text):
        true = len(named(match[3], match[2])) == NUMBERS.index(match[1])
    elif match := _THERE.fullmatch(text):
        true = bool(named(match[2], match[1]))
    elif match := _IS_COLOR.fullmatch(text):
        shown = named(match[1], None)
        # "the circle" is the one that is seen best; "the circles" are all of them.
        shown = shown[:1] if match[1] in SHAPES else shown
        true = bool(shown) and all(d.color == match[2] for d in shown)
    elif match := _IS_PLACED.fullmatch(text):
        first, second = named(match[2], match[1])[:1], named(match[5], match[4])[:1]
        true = bool(first and second) and match[3] in relations(first[0].box, second[0].box)
    else:
        raise InputError(
            f"question {question[:80]!r}: the built-in world's VQA does not know this form or one of its words",
            hint="it answers questions about coloured shapes; name a model with --vqa",
        )
    return "yes" if true else "no"
