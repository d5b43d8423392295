"""Reading a prompt of GenEval's or the built-in world's grammar back into what it asks for.

Both GenEval's naive words ("two knifes", "a skis") and correct ones ("two knives", "a pair of skis") are understood.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from typing import Any

from sanactl.prompts.geneval.vocabulary import COLORS, MEASURES, OBJECTS, RELATIONS, naive_plural, plural
from sanactl.shapes.vocabulary import MEDIA, SHAPES

__all__ = ["clauses_of", "normal_text", "without_medium"]

MAX_CHARACTERS = 400  # of a prompt of these grammars; longer ones are not read
_NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_COUNTS = {"a": 1, "an": 1, "the": 1, **{word: count for count, word in enumerate(_NUMBERS, 1)}}
_DIGITS = re.compile("[1-9][0-9]{0,2}")
# COCO's own names of three classes that GenEval calls otherwise, and what is said for another one.
_ALSO = {
    "mouse": "computer mouse",
    "mice": "computer mouse",
    "computer mouses": "computer mouse",
    "remote": "tv remote",
    "remotes": "tv remote",
    "keyboard": "computer keyboard",
    "keyboards": "computer keyboard",
}
_MEDIUM = re.compile(rf"(?:(?:an?|the) )?(?:{'|'.join((*MEDIA, 'photograph'))}) of (?=.)")
_RELATION = re.compile(rf" (?:(?:to|on) the )?({'|'.join(RELATIONS)}) ")


def normal_text(text: str) -> str:
    """A prompt's text without differences that mean nothing: case, spaces, forms of characters, a stop at its end."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).rstrip(" .!,;")


def without_medium(text: str) -> str:
    """A normal text without "a photo of" or another word for the image."""
    return _MEDIUM.sub("", text, count=1) if _MEDIUM.match(text) else text


def clauses_of(text: str) -> list[dict[str, Any]] | None:
    """What a prompt asks for, as GenEval's `include`, or None for a text that is not of these grammars.

    Understood are one thing or several in number, things joined by "and", and one thing in a relation to another, each
    with a colour or without. A word for the image before them makes no difference.
    """
    if len(text) > MAX_CHARACTERS:
        return None
    words = without_medium(normal_text(text))
    if len(parts := _RELATION.split(words)) == 3:
        placed, target = _thing(parts[0]), _thing(parts[2])
        if placed is None or target is None:
            return None
        return [target, {**placed, "position": [parts[1], 0]}]
    things = [_thing(part) for part in re.split(r", and |, | and ", words)]
    return None if None in things else [thing for thing in things if thing is not None]


def _thing(words: str) -> dict[str, Any] | None:
    """A clause from "a red car", "two pairs of skis", "three knifes"."""
    number, _, rest = words.partition(" ")
    count = _COUNTS.get(number)
    if count is None and _DIGITS.fullmatch(number):
        count = int(number)
    elif count is None:
        rest = words  # without a number or an article
    measure = color = None
    while rest not in _nouns():
        word, _, rest = rest.partition(" ")
        if word in COLORS and color is None:
            color = word
        elif word.removesuffix("s") in MEASURES.values() and measure is None and rest.startswith("of "):
            measure, rest = word, rest.removeprefix("of ")
        else:
            return None
    name, many = _nouns()[rest]
    if measure is not None:
        if measure.removesuffix("s") != MEASURES.get(name):
            return None
        many = measure.endswith("s")
    if count is None:
        if many:
            return None
        count = 1
    return {"class": name, "count": count, **({"color": color} if color else {})}


@cache
def _nouns() -> dict[str, tuple[str, bool]]:
    """Each form of each class's name: the class, and whether the form is of many only."""
    nouns: dict[str, tuple[str, bool]] = {form: (name, False) for form, name in _ALSO.items()}
    for name in (*OBJECTS, *SHAPES):
        nouns |= dict.fromkeys((naive_plural(name), plural(name)), (name, True))
    return nouns | {name: (name, False) for name in (*OBJECTS, *SHAPES)}
