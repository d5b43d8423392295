"""DPG-Bench's arithmetic: from answers to scores, by the official script's rules and by mended ones.

Source: ELLA `dpg_bench/compute_dpg_bench.py`, `compute_dpg_one_sample` and `main`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sanactl.scoring.questions.dpg_file import Question

__all__ = ["PROTOCOLS", "ItemScore", "fixed_item", "official_item", "zeroed"]

Answers = Mapping[int, bool]
# (name of a category, the value in [0, 1] of one of its questions).
Values = list[tuple[str, float]]

PROTOCOLS = {
    "fixed": "a no to a question is a no to all that depend on it; categories from all images",
    "official": "as the official script computes: without the table's first row, categories from last images and from "
    "answers as given, without images that it fails on",
}


@dataclass(frozen=True)
class ItemScore:
    """An item's scores, in [0, 1].

    Attributes:
        value: the mean over its images.
        broad, detailed: values of questions by category.
    """

    value: float
    broad: Values
    detailed: Values


def zeroed(questions: Mapping[int, Question], yes: Answers) -> dict[int, bool]:
    """The answers of an image, each a no where a parent's is.

    Args:
        questions: parents before their children, as `fixed_questions` gives them.
    """
    found: dict[int, bool] = {}
    for number, question in questions.items():
        found[number] = yes[number] and all(found[parent] for parent in question.parents if parent)
    return found


def fixed_item(questions: Mapping[int, Question], images: Sequence[Answers]) -> ItemScore:
    """An item's scores by the mended rules.

    A question's value is its share of yeses among the images. Categories are the table's columns `category_broad`, and
    both with a dash.
    """
    rows = [zeroed(questions, yes) for yes in images]
    value = sum(sum(row.values()) / len(row) for row in rows) / len(rows)
    broad, detailed = [], []
    for number, question in questions.items():
        share = sum(row[number] for row in rows) / len(rows)
        name = question.broad or "none"
        broad.append((name, share))
        detailed.append((f"{name} - {question.detailed}" if question.detailed else name, share))
    return ItemScore(value, broad, detailed)


def official_image(questions: Mapping[int, Question], yes: Answers) -> float:
    """The share of yeses of an image. A no of a parent becomes the child's, in the table's order: not the grandchild's
    where that comes first.

    Raises:
        KeyError: a parent is absent, and no parent before it has a no; the script drops the image.
    """
    scores = {number: float(yes[number]) for number in questions}
    for number, question in questions.items():
        for parent in question.parents:
            if parent != 0 and scores[parent] == 0:
                scores[number] = 0.0
                break
    return sum(scores.values()) / len(scores)


def official_item(questions: Mapping[int, Question], images: Sequence[Answers]) -> ItemScore:
    """An item's scores by the official script: of a file with its four crops.

    Raises:
        KeyError: see `official_image`; the script leaves the item out.
    """
    scores = [official_image(questions, yes) for yes in images]
    # Of the last image, before a no of a parent counts.
    last = [(q.of_tuple, float(images[-1][number])) for number, q in questions.items()]
    broad = [(name.split("-")[0].strip(), value) for name, value in last]
    return ItemScore(sum(scores) / len(scores), broad, last)
