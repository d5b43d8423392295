"""Questions about an image with their answers, and labels for the auxiliary loss at each noun."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sanactl.prompts.geneval.vocabulary import RELATIONS
from sanactl.records.records import Record
from sanactl.scoring.detectors.protocol import Detected
from sanactl.scoring.geneval.rules import (
    CONFIDENCE,
    CONFIDENCE_COUNTING,
    is_confident,
    relations,
    score_image,
)
from sanactl.shapes.vocabulary import COLORS, PLURALS, SHAPES
from sanactl.world.judge_model import GRID, IMAGE_SIZE
from sanactl.world.judge_pool import View
from sanactl.world.judge_prompts import content_of, near_miss, random_content, seen_content, train_record

__all__ = ["FACTS", "UNKNOWN", "Question", "ask", "facts_at_words"]

# The labels at a noun: how many such objects there are above each of GenEval's two thresholds, the patch and the colour of
# the most confident one, and at a second noun its relation to the first.
_RELATION_SETS: tuple[tuple[str, ...], ...] = (
    (),
    *((r,) for r in RELATIONS),
    *((h, v) for h in RELATIONS[:2] for v in RELATIONS[2:]),
)
MANY = 5
FACTS: dict[str, int] = {
    "found": MANY + 1,
    "sure": MANY + 1,
    "cell": GRID * GRID + 1,
    "color": len(COLORS) + 1,
    "relation": len(_RELATION_SETS),
}
UNKNOWN = -100
_SINGULAR = {word: s for s in SHAPES for word in (s, PLURALS[s])}


@dataclass(frozen=True)
class Question:
    """A prompt about an image: its words, whether the image is right for it, and `FACTS` at each word or UNKNOWN."""

    words: list[str]
    correct: bool
    facts: list[dict[str, int]]
    own: bool
    record: Record


def ask(view: View, count: int, rng: np.random.Generator) -> list[Question]:
    """`count` different questions about an image: its own prompt, then others, half of all of them with a yes.

    Where an image has too few questions with one answer, questions with the other answer take their places.
    """
    found, seen = view.detected(), view.seen()
    chosen = [(view.record, bool(score_image(found, view.record)["correct"]))]
    spare: list[tuple[Record, bool]] = []
    prompts = {view.record["prompt"]}
    wanted = {answer: count // 2 - (answer == chosen[0][1]) for answer in (True, False)}
    own = (str(view.record["tag"]), content_of(view.record))
    for _ in range(6 * count):
        if len(chosen) >= count:
            break
        record = _draw(own, seen, rng, right=wanted[True] > wanted[False])
        if record is None or record["prompt"] in prompts:
            continue
        prompts.add(record["prompt"])
        answer = bool(score_image(found, record)["correct"])
        if wanted[answer] > 0:
            wanted[answer] -= 1
            chosen.append((record, answer))
        else:
            spare.append((record, answer))
    chosen += spare[: count - len(chosen)]
    while len(chosen) < count:
        chosen.append(chosen[0])
    return [_question(record, answer, found, i == 0) for i, (record, answer) in enumerate(chosen)]


def _draw(
    own: tuple[str, tuple[str, ...]],
    seen: Sequence[tuple[str, str]],
    rng: np.random.Generator,
    *,
    right: bool,
) -> Record | None:
    """A prompt that is likely `right` for the image (made of what it shows) or likely wrong (one word changed)."""
    kind = rng.random()
    if right:
        drawn = own if kind < 0.1 else seen_content(seen, rng)
    else:
        drawn = own if kind < 0.4 else seen_content(seen, rng) if kind < 0.9 else random_content(rng)
        if drawn is not None and kind < 0.9:
            drawn = near_miss(*drawn, seen, rng)
    return None if drawn is None else train_record(*drawn, rng)


def own_question(view: View) -> Question:
    """The question of an image's own prompt."""
    found = view.detected()
    return _question(view.record, bool(score_image(found, view.record)["correct"]), found, True)


def _question(record: Record, correct: bool, found: Sequence[Detected], own: bool) -> Question:
    words = str(record["prompt"]).split()
    return Question(words, correct, facts_at_words(words, found), own, record)


def facts_at_words(words: Sequence[str], found: Sequence[Detected]) -> list[dict[str, int]]:
    """`FACTS` at every noun of a prompt, UNKNOWN elsewhere, given all objects of the image."""
    by_class: dict[str, list[Detected]] = {}
    for d in sorted(found, key=lambda d: -d.score):
        if is_confident(d.score, CONFIDENCE):
            by_class.setdefault(d.name, []).append(d)
    facts: list[dict[str, int]] = []
    first: Detected | None = None
    nouns = 0
    for word in words:
        known = dict.fromkeys(FACTS, UNKNOWN)
        shape = _SINGULAR.get(word)
        if shape is not None:
            nouns += 1
            same = by_class.get(shape, [])
            top = same[0] if same else None
            known["found"] = min(len(same), MANY)
            known["sure"] = min(sum(is_confident(d.score, CONFIDENCE_COUNTING) for d in same), MANY)
            known["cell"] = GRID * GRID if top is None else _cell(top)
            known["color"] = 0 if top is None else 1 + list(COLORS).index(str(top.color))
            if nouns == 2 and first is not None and top is not None:
                known["relation"] = _RELATION_SETS.index(tuple(relations(first.box, top.box)))
            first = first or top
        facts.append(known)
    return facts


def _cell(d: Detected) -> int:
    x, y = (d.box[0] + d.box[2]) / 2, (d.box[1] + d.box[3]) / 2
    column, row = (int(np.clip(v * GRID / IMAGE_SIZE, 0, GRID - 1)) for v in (x, y))
    return row * GRID + column
