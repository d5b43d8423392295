"""Prompts for the training of a judge: some that a picture fits, and some that are wrong in one word.

A judge that sees each image with its own prompt alone learns which prompts the sampler finds easy, and does not look at
the image. So each image is shown with several prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from sanactl.errors import InputError
from sanactl.shapes.prompts import Content, Record, contents, record_of, split_of
from sanactl.shapes.vocabulary import COLORS, NUMBERS, PHRASES, RELATIONS, SHAPES, TASKS

__all__ = [
    "content_of",
    "near_miss",
    "phrase_of",
    "random_content",
    "require_train_split",
    "seen_content",
    "train_record",
]

_COLORS = tuple(COLORS)
_COUNTS = tuple(str(n) for n in NUMBERS)
# The share of each task among the questions; tasks that are hard to see have a larger one.
_TASK_WEIGHTS = np.array([0.06, 0.10, 0.30, 0.10, 0.28, 0.16])


def content_of(record: Record) -> Content:
    """A record's content, as `record_of` takes it.

    Raises:
        InputError: the record is not one of the built-in world's.
    """
    try:
        tag, include = record["tag"], record["include"]
        first = include[0]
        if tag in ("single_object", "two_object"):
            content = tuple(str(clause["class"]) for clause in include)
        elif tag == "counting":
            content = (str(first["count"]), str(first["class"]))
        elif tag == "position":
            content = (str(include[1]["class"]), str(include[1]["position"][0]), str(first["class"]))
        else:
            content = tuple(str(v) for clause in include for v in (clause["color"], clause["class"]))
        if content in _content_set(tag):
            return content
    except (KeyError, IndexError, TypeError, ValueError):
        pass
    raise InputError(
        f"prompt {str(record.get('prompt'))[:60]!r} is none of the built-in world's",
        hint="train the judge on samples of `sanactl prompts shapes`",
    )


def phrase_of(record: Record) -> str:
    """What a record's prompt calls the image: "a photo of"...

    Raises:
        InputError: the record is not one of the built-in world's.
    """
    content = content_of(record)
    for phrase in PHRASES:
        if record_of(record["tag"], content, phrase)["prompt"] == record["prompt"]:
            return phrase
    raise InputError(f"prompt {record['prompt'][:60]!r} does not say what its record asks for")


def require_train_split(record: Record) -> None:
    """Refuses a prompt that is held out for evaluation or calibration.

    Raises:
        InputError: it is, or it is not one of the built-in world's.
    """
    split = split_of(record["tag"], content_of(record), phrase_of(record))
    if split != "train":
        raise InputError(
            f"prompt {record['prompt']!r} is of the {split} split, and must not be trained on",
            hint="sample from `sanactl prompts shapes --split train`",
        )


@cache
def _content_set(tag: str) -> frozenset[Content]:
    return frozenset(contents(tag))


def random_content(rng: np.random.Generator) -> tuple[str, Content]:
    """A task and any content of it."""
    tag = TASKS[int(rng.choice(len(TASKS), p=_TASK_WEIGHTS))]
    choices = contents(tag)
    return tag, choices[int(rng.integers(len(choices)))]


def seen_content(objects: Sequence[tuple[str, str]], rng: np.random.Generator) -> tuple[str, Content] | None:
    """A task and a content made of what a picture shows; a relation is random.

    Args:
        objects: shape and colour of each object in the picture.

    Returns:
        None where the picture has too little for the task that was drawn.
    """
    if not objects:
        return None
    tag = TASKS[int(rng.choice(len(TASKS), p=_TASK_WEIGHTS))]
    order = rng.permutation(len(objects))
    shape, color = objects[order[0]]
    other = next((objects[i] for i in order[1:] if objects[i][0] != shape), None)
    content: Content
    if tag == "single_object":
        content = (shape,)
    elif tag == "counting":
        content = (str(sum(s == shape for s, _ in objects)), shape)
    elif tag == "colors":
        content = (color, shape)
    elif other is None:
        return None
    elif tag == "two_object":
        content = (shape, other[0])
    elif tag == "position":
        content = (shape, RELATIONS[int(rng.integers(len(RELATIONS)))], other[0])
    else:
        content = (color, shape, other[1], other[0])
    return (tag, content) if content in _content_set(tag) else None


def near_miss(
    tag: str, content: Content, objects: Sequence[tuple[str, str]], rng: np.random.Generator
) -> tuple[str, Content] | None:
    """The same content with one word changed, or two swapped; None where the change makes no prompt.

    In half of the cases the new shape or colour is one that the picture shows elsewhere, which is harder to tell apart.
    """
    parts = list(content)
    if tag in ("color_attr", "position") and rng.random() < 0.25:
        # The colours of the two objects, or the two objects of a relation.
        parts[0], parts[2] = parts[2], parts[0]
    else:
        slot = int(rng.integers(len(parts)))
        if tag == "position" and rng.random() < 0.4:
            slot = 1
        if tag == "counting" and rng.random() < 0.5:
            slot = 0
        parts[slot] = _another(parts[slot], objects, rng)
    changed = tuple(parts)
    return (tag, changed) if changed != content and changed in _content_set(tag) else None


def _another(word: str, objects: Sequence[tuple[str, str]], rng: np.random.Generator) -> str:
    """Another word of the same kind."""
    if word in _COUNTS:
        near = [c for c in _COUNTS if abs(int(c) - int(word)) == 1]
        return near[int(rng.integers(len(near)))]
    kind = next(k for k in (SHAPES, _COLORS, RELATIONS) if word in k)
    choices = [c for c in kind if c != word]
    if kind is not RELATIONS and rng.random() < 0.5:
        shown = [o[0] if kind is SHAPES else o[1] for o in objects]
        choices = [c for c in shown if c != word] or choices
    return choices[int(rng.integers(len(choices)))]


def train_record(tag: str, content: Content, rng: np.random.Generator) -> Record | None:
    """The record of a content with a random phrase; None where that prompt is held out."""
    phrase = PHRASES[int(rng.integers(len(PHRASES)))]
    return record_of(tag, content, phrase) if split_of(tag, content, phrase) == "train" else None
