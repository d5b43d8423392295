"""GenEval's 553 prompts, drawn from the seed that the official file was drawn from.

Source: GenEval's `prompts/create_prompts.py` (Ghosh et al. 2023); the order of the draws decides the result.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sanactl.prompts.geneval.vocabulary import COLORS, NUMBERS, OBJECTS, RELATIONS, naive_plural, with_article
from sanactl.records.records import Record

if TYPE_CHECKING:
    import numpy as np

__all__ = ["BENCHMARK_SHA256", "geneval_prompts"]

# Of the official `evaluation_metadata.jsonl`, in which each record is a line of JSON.
BENCHMARK_SHA256 = "5c48e0813e812e3c373fa5c8ed07a8f0a483be30272b4427b0559c8048e67c13"
SEED = 43
DRAWS = 100  # a task, before duplicates are removed


def geneval_prompts() -> list[Record]:
    """The official prompts in their order: `tag`, `include`, `exclude` where objects are counted, `prompt`.

    `json.dumps` of each, a line each, is the official file (`BENCHMARK_SHA256`).
    """
    import json

    import numpy as np

    rng = np.random.default_rng(SEED)
    drawn = (
        record for draw in (_single, _two, _counting, _colors, _position, _color_pair) for record in draw(rng)
    )
    return [json.loads(line) for line in dict.fromkeys(json.dumps(record) for record in drawn)]


def _of(number: int, **more: object) -> Record:
    """A clause: one object of a class."""
    return {"class": OBJECTS[number % len(OBJECTS)], "count": 1, **more}


def _single(rng: np.random.Generator) -> Iterator[Record]:
    for number in rng.choice(len(OBJECTS), size=len(OBJECTS), replace=False):
        clause = _of(int(number))
        yield {
            "tag": "single_object",
            "include": [clause],
            "prompt": f"a photo of {with_article(clause['class'])}",
        }


def _two(rng: np.random.Generator) -> Iterator[Record]:
    for _ in range(DRAWS):
        first, second = (_of(int(n)) for n in rng.choice(len(OBJECTS), 2, replace=False))
        words = f"{with_article(first['class'])} and {with_article(second['class'])}"
        yield {"tag": "two_object", "include": [first, second], "prompt": f"a photo of {words}"}


def _counting(rng: np.random.Generator) -> Iterator[Record]:
    for _ in range(DRAWS):
        name = OBJECTS[int(rng.choice(len(OBJECTS)))]
        count = int(rng.integers(2, 4, endpoint=True))
        yield {
            "tag": "counting",
            "include": [{"class": name, "count": count}],
            "exclude": [{"class": name, "count": count + 1}],
            "prompt": f"a photo of {NUMBERS[count]} {naive_plural(name)}",
        }


def _colors(rng: np.random.Generator) -> Iterator[Record]:
    for _ in range(DRAWS):
        # One is added, so that "person" is never coloured.
        number = int(rng.choice(len(OBJECTS) - 1)) + 1
        color = COLORS[int(rng.choice(len(COLORS)))]
        clause = _of(number, color=color)
        words = with_article(f"{color} {clause['class']}")
        yield {"tag": "colors", "include": [clause], "prompt": f"a photo of {words}"}


def _position(rng: np.random.Generator) -> Iterator[Record]:
    for _ in range(DRAWS):
        one, other = (int(n) for n in rng.choice(len(OBJECTS), 2, replace=False))
        relation = RELATIONS[int(rng.choice(len(RELATIONS)))]
        target, placed = _of(other), _of(one, position=[relation, 0])
        words = f"{with_article(placed['class'])} {relation} {with_article(target['class'])}"
        yield {"tag": "position", "include": [target, placed], "prompt": f"a photo of {words}"}


def _color_pair(rng: np.random.Generator) -> Iterator[Record]:
    for _ in range(DRAWS):
        numbers = [int(n) + 1 for n in rng.choice(len(OBJECTS) - 1, 2, replace=False)]
        colors = [COLORS[int(n)] for n in rng.choice(len(COLORS), 2, replace=False)]
        clauses = [_of(n, color=c) for n, c in zip(numbers, colors, strict=True)]
        words = " and ".join(with_article(f"{c['color']} {c['class']}") for c in clauses)
        yield {"tag": "color_attr", "include": clauses, "prompt": f"a photo of {words}"}
