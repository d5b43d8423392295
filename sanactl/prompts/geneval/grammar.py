"""All prompts of GenEval's grammar, by number: a number is a meaning, and no two numbers mean the same.

The words are correct English ("two knives", "a pair of skis"); those of the benchmark are not (`benchmark`).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from itertools import combinations, permutations
from typing import Any

from sanactl.prompts.draw import Space
from sanactl.prompts.geneval.vocabulary import COLORS, INVERSE, NUMBERS, OBJECTS, TASKS, several, single
from sanactl.records.records import Record

__all__ = ["geneval_spaces"]

# As in the benchmark, a person has no colour.
_COLORED = tuple(name for name in OBJECTS if name != "person")


def geneval_spaces() -> list[Space]:
    """The prompts of each task, in the order of `TASKS`: 80, 3,160, 240, 790, 12,640 and 277,290."""
    pairs, colored = len(_pairs(OBJECTS)), len(_pairs(_COLORED))
    sizes = (
        len(OBJECTS), pairs, len(NUMBERS) * len(OBJECTS), len(COLORS) * len(_COLORED), 4 * pairs,
        len(_color_pairs()) * colored,
    )  # fmt: skip
    makers = (_single_object, _two_object, _counting, _colors, _position, _color_attr)
    return [Space(*given) for given in zip(TASKS, sizes, makers, strict=True)]


@cache
def _pairs(names: tuple[str, ...]) -> list[tuple[str, str]]:
    return list(combinations(names, 2))


@cache
def _color_pairs() -> list[tuple[str, str]]:
    return list(permutations(COLORS, 2))


def _record(tag: str, include: Iterable[dict[str, Any]], words: str, **more: Any) -> Record:
    return {"tag": tag, "include": [*include], **more, "prompt": f"a photo of {words}"}


def _one(name: str, **more: Any) -> dict[str, Any]:
    return {"class": name, "count": 1, **more}


def _single_object(number: int, turned: bool) -> Record:
    name = OBJECTS[number]
    return _record("single_object", [_one(name)], single(name))


def _two_object(number: int, turned: bool) -> Record:
    names = _pairs(OBJECTS)[number][:: -1 if turned else 1]
    return _record("two_object", map(_one, names), " and ".join(map(single, names)))


def _counting(number: int, turned: bool) -> Record:
    counts = [*NUMBERS]
    name, count = OBJECTS[number // len(counts)], counts[number % len(counts)]
    more = {"class": name, "count": count + 1}
    return _record("counting", [{"class": name, "count": count}], several(count, name), exclude=[more])


def _colors(number: int, turned: bool) -> Record:
    name, color = _COLORED[number // len(COLORS)], COLORS[number % len(COLORS)]
    return _record("colors", [_one(name, color=color)], single(name, color))


def _position(number: int, turned: bool) -> Record:
    placed, target = _pairs(OBJECTS)[number // 4][:: 1 if number % 2 else -1]
    relation = "left of" if number % 4 < 2 else "above"
    if turned:
        placed, relation, target = target, INVERSE[relation], placed
    include = [_one(target), _one(placed, position=[relation, 0])]
    return _record("position", include, f"{single(placed)} {relation} {single(target)}")


def _color_attr(number: int, turned: bool) -> Record:
    colors = _color_pairs()
    names = _pairs(_COLORED)[number // len(colors)]
    things = list(zip(names, colors[number % len(colors)], strict=True))[:: -1 if turned else 1]
    words = " and ".join(single(name, color) for name, color in things)
    return _record("color_attr", (_one(name, color=color) for name, color in things), words)
