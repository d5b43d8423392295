"""Prompts of the built-in world, as records in GenEval's metadata form, and scenes that satisfy them.

A record is `{"tag", "include", ["exclude"], "prompt"}` with the meaning that GenEval's `evaluate_images.py`
gives it. Its content is what the image must show; its phrase is how the prompt names the image ("a photo of",
"sketch of").

Splits. A stable hash assigns every prompt to `train`, `eval` or `calib`, which share no prompt:

* two_object, position, color_attr: whole contents are held out, with all their phrasings. Two prompts that
  demand the same picture are one content: "a star and a heart" and "a heart and a star"; "a star above a
  heart" and "a heart below a star".
* single_object, counting, colors: there are 6, 18 and 60 contents only, so the pair of phrase and content is
  held out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import resources
from itertools import permutations
from typing import Any

import numpy as np

from sanactl.shapes.scene import Item, Scene, place
from sanactl.shapes.vocabulary import (
    COLORS,
    NUMBERS,
    PHRASES,
    PLURALS,
    RELATIONS,
    SHAPES,
    TASKS,
    with_article,
)

Record = dict[str, Any]
# A content: the names that fill a task's prompt, in the prompt's order.
Content = tuple[str, ...]

SPLITS = ("train", "eval", "calib")
# The share of a task's units held out for (eval, calib). single_object has 6 x 20 prompts in all: a little
# over half of them for eval gives the 60 that every task contributes.
HELD_OUT: dict[str, tuple[float, float]] = {
    "single_object": (0.54, 0.08),
    "two_object": (0.22, 0.10),
    "counting": (0.22, 0.08),
    "colors": (0.15, 0.05),
    "position": (0.20, 0.06),
    "color_attr": (0.15, 0.05),
}
# Tasks with few contents: what is held out of them is a content in certain words, not the content.
HELD_OUT_BY_PHRASE = ("single_object", "counting", "colors")
_INVERSE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}

# GenEval's position rule: the tolerance in sums of the two sizes. A relation holds past 0.5 of the centres'
# distance; scenes keep to 0.62, so that boxes that a detector reads a pixel off still give the relation.
POSITION_TOLERANCE = 0.1
_POSITION_MARGIN = 0.62


@cache
def contents(tag: str) -> tuple[Content, ...]:
    """All contents of a task, in a fixed order."""
    pairs = list(permutations(SHAPES, 2))
    if tag == "single_object":
        return tuple((s,) for s in SHAPES)
    if tag == "two_object":
        return tuple(pairs)
    if tag == "counting":
        return tuple((str(n), s) for n in NUMBERS for s in SHAPES)
    if tag == "colors":
        return tuple((c, s) for s in SHAPES for c in COLORS)
    if tag == "position":
        return tuple((a, r, b) for a, b in pairs for r in RELATIONS)
    if tag == "color_attr":
        return tuple((c, a, d, b) for a, b in pairs for c, d in permutations(COLORS, 2))
    raise ValueError(f"unknown task {tag!r}: one of {', '.join(TASKS)}")


def record_of(tag: str, content: Content, phrase: str) -> Record:
    """The prompt record for a content of a task, in GenEval's metadata form."""
    include: list[dict[str, Any]]
    exclude: list[dict[str, Any]] | None = None
    if tag in ("single_object", "two_object"):
        include = [{"class": s, "count": 1} for s in content]
        text = " and ".join(with_article(s) for s in content)
    elif tag == "counting":
        count, shape = int(content[0]), content[1]
        include = [{"class": shape, "count": count}]
        exclude = [{"class": shape, "count": count + 1}]
        text = f"{NUMBERS[count]} {PLURALS[shape]}"
    elif tag == "position":
        a, relation, b = content
        # B first: the position of A points at include[0].
        include = [{"class": b, "count": 1}, {"class": a, "count": 1, "position": [relation, 0]}]
        text = f"{with_article(a)} {relation} {with_article(b)}"
    else:
        pairs = list(zip(content[::2], content[1::2], strict=True))
        include = [{"class": s, "count": 1, "color": c} for c, s in pairs]
        text = " and ".join(with_article(f"{c} {s}") for c, s in pairs)
    record: Record = {"tag": tag, "include": include}
    if exclude is not None:
        record["exclude"] = exclude
    record["prompt"] = f"{phrase} {text}"
    return record


def _unit(tag: str, content: Content, phrase: str) -> str:
    """What is held out together: a picture's demand, or a pair of phrase and content for the small tasks."""
    if tag == "two_object":
        content = tuple(sorted(content))
    elif tag == "color_attr":
        content = max(content, content[2:] + content[:2])
    elif tag == "position":
        content = max(content, (content[2], _INVERSE[content[1]], content[0]))
    else:
        content = (phrase, *content)
    return "|".join((tag, *content))


@cache
def _split_of_unit(unit: str) -> str:
    tag = unit.split("|", 1)[0]
    u = int.from_bytes(hashlib.sha256(f"sanactl shapes 1|{unit}".encode()).digest()[:8], "big") / 2**64
    held_eval, held_calib = HELD_OUT[tag]
    return "eval" if u < held_eval else "calib" if u < held_eval + held_calib else "train"


def split_of(tag: str, content: Content, phrase: str) -> str:
    """The split that a prompt belongs to: "train", "eval" or "calib"; the same on every machine."""
    return _split_of_unit(_unit(tag, content, phrase))


def sample_prompt(rng: np.random.Generator, tag: str | None = None, split: str = "train") -> Record:
    """A random prompt record of a split, of one task or (by default) of a task drawn uniformly."""
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: one of {', '.join(SPLITS)}")
    if tag is None:
        tag = TASKS[int(rng.integers(len(TASKS)))]
    choices = contents(tag)
    while True:
        content = choices[int(rng.integers(len(choices)))]
        phrase = PHRASES[int(rng.integers(len(PHRASES)))]
        if split_of(tag, content, phrase) == split:
            return record_of(tag, content, phrase)


def all_prompts(split: str, tag: str | None = None) -> Iterator[Record]:
    """Every prompt record of a split, in a fixed order (about 58,000 over the three splits)."""
    for task in TASKS if tag is None else (tag,):
        for content in contents(task):
            for phrase in PHRASES:
                if split_of(task, content, phrase) == split:
                    yield record_of(task, content, phrase)


def words() -> list[str]:
    """Every word that a prompt can have, sorted: the vocabulary of a word-level tokenizer."""
    parts = [*PHRASES, *COLORS, *SHAPES, *PLURALS.values(), *RELATIONS, *NUMBERS.values(), "a", "an", "and"]
    return sorted({word for part in parts for word in part.split()})


def holds(relation: str, a: Item, b: Item) -> bool:
    """Whether `a` stands in `relation` to `b` by GenEval's rule, with a margin (see `_POSITION_MARGIN`)."""
    axis, sign = {"left of": (0, -1), "right of": (0, 1), "above": (1, -1), "below": (1, 1)}[relation]
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = a.box, b.box
    widths = ((ax1 - ax0) + (bx1 - bx0), (ay1 - ay0) + (by1 - by0))
    offset = (a.x - b.x, a.y - b.y)
    revised = sign * offset[axis] - POSITION_TOLERANCE * widths[axis]
    return revised > _POSITION_MARGIN * float(np.hypot(*offset))


def scene_for(record: Record, rng: np.random.Generator) -> Scene:
    """A random scene that is right for a prompt record and shows nothing else.

    Colours that the prompt does not name are random; half of the counting scenes give all items one colour.
    """
    names = list(COLORS)
    kinds: list[tuple[str, str]] = []
    relations: list[tuple[int, str, int]] = []
    starts: list[int] = []
    for entry in record["include"]:
        starts.append(len(kinds))
        count = int(entry["count"])
        drawn = [names[i] for i in rng.integers(len(names), size=count)]
        if count > 1 and rng.random() < 0.5:
            drawn = drawn[:1] * count
        kinds += [(entry["class"], entry.get("color", color)) for color in drawn]
        if "position" in entry:
            relation, target = entry["position"]
            relations.append((starts[-1], relation, starts[target]))

    def right(items: Sequence[Item]) -> bool:
        return all(holds(relation, items[a], items[b]) for a, relation, b in relations)

    return place(kinds, rng, right if relations else None)


def _asset(name: str) -> list[str]:
    folder = resources.files("sanactl.shapes") / "assets"
    return (folder / name).read_text(encoding="utf-8").splitlines()


def load_eval_prompts() -> list[Record]:
    """The checked-in evaluation prompts, 60 a task, each with its `id`."""
    return [json.loads(line) for line in _asset("eval.jsonl")]


def load_calib_prompts() -> list[str]:
    """The checked-in calibration prompts, 100 lines of text."""
    return _asset("calib.txt")
