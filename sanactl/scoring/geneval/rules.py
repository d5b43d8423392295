"""GenEval's rules: whether the objects found in an image are what its prompt asks for.

The rules are those of the official `evaluation/evaluate_images.py` (Ghosh et al. 2023), reasons' wording
included. They take the `Detected` objects of any detector. Every score names its detector, for the same image has another
score under another detector.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sanactl.errors import InputError, UsageError
from sanactl.prompts.geneval.vocabulary import COLORS, RELATIONS, TASKS
from sanactl.scoring.detectors.protocol import Box, Detected

__all__ = [
    "CONFIDENCE",
    "CONFIDENCE_COUNTING",
    "MAX_OBJECTS",
    "RULES",
    "TASKS",
    "check_record",
    "is_confident",
    "kept_objects",
    "relations",
    "score_image",
]


@dataclass(frozen=True)
class Rules:
    """A set of rules.

    Attributes:
        metric: name of its scores.
        protocol: of its scores.
        exact: whether an `include` clause wants just as many objects as it counts, and no more.
        excludes: whether `exclude` clauses count.
    """

    metric: str
    protocol: str
    exact: bool = False
    excludes: bool = True


RULES: dict[str, Rules] = {
    "geneval": Rules("geneval", "GenEval's rules"),
    # Of the reward servers that train image models on GenEval-like prompts. A score by them is no GenEval score.
    "reward": Rules(
        "reward_rules", "a reward server's rules (counts equal, excludes ignored)", exact=True, excludes=False
    ),
}

# An object counts above this confidence; counting needs a higher one, for there a false detection is an error.
CONFIDENCE = 0.3
CONFIDENCE_COUNTING = 0.9
# Objects kept of a class, the most confident first.
MAX_OBJECTS = 16
# Position: this share of the two objects' summed sizes is taken off their centres' offset on each axis; a
# relation holds where what is left exceeds this share of the centres' distance.
POSITION_TOLERANCE = 0.1
POSITION_THRESHOLD = 0.5


def is_confident(score: float, confidence: float) -> bool:
    """Whether an object of this score is above a confidence, compared in float32.

    The official scorer's detections are float32 arrays, and NumPy rounds the threshold beside them to float32, too. In
    float64 the float32 nearest to 0.3 would be above 0.3.
    """
    import numpy as np

    return bool(np.float32(score) > np.float32(confidence))


def relations(a: Box, b: Box) -> list[str]:
    """The relations in which box `a` stands to box `b`, in the order of `RELATIONS`; none for boxes too near.

    On the normalised scale a diagonal is 0.71 on both axes, so that two relations can hold at once. Computed in
    float32, as the official scorer does with its detector's boxes.
    """
    import numpy as np

    # [box, corner, axis]
    corners = np.array([a, b], dtype=np.float32).reshape(2, 2, 2)
    centers = corners.mean(axis=1)
    sizes = np.abs(corners[:, 1] - corners[:, 0])
    offset = centers[0] - centers[1]
    revised = np.maximum(np.abs(offset) - POSITION_TOLERANCE * (sizes[0] + sizes[1]), 0) * np.sign(offset)
    # As in the official scorer, offsets under 1e-3 px on both axes count as zero.
    if bool((np.abs(revised) < 1e-3).all()):
        return []
    dx, dy = revised / np.linalg.norm(offset)
    holds = (
        dx < -POSITION_THRESHOLD,
        dx > POSITION_THRESHOLD,
        dy < -POSITION_THRESHOLD,
        dy > POSITION_THRESHOLD,
    )
    return [name for name, true in zip(RELATIONS, holds, strict=True) if true]


def score_image(
    detections: Iterable[Detected],
    record: Mapping[str, Any],
    *,
    colors: Callable[[Sequence[Detected], str], list[str]] | None = None,
    rules: Rules = RULES["geneval"],
) -> dict[str, Any]:
    """Whether an image is right for its prompt, by GenEval's rules unless others are given.

    Every `include` clause must hold on the most confident objects of its class, as many as the clause counts:
    that many are there, all of the named colour, all in the named relation to all objects of the target
    clause. No `exclude` clause may hold. A surplus of objects is a fault only where an `exclude` clause says
    so.

    Args:
        detections: all objects found in the image, in any order.
        record: a prompt record in GenEval's form: `tag`, `include`, optionally `exclude`.
        colors: (objects, class) -> their colours; by default the colours that the detections carry.
        rules: one of `RULES`.

    Returns:
        {"correct": bool, "reason": str}, the reason in the official wording, a line for each fault, "" if
        none.

    Raises:
        InputError: the record is not in GenEval's form.
    """
    check_record(record)
    objects = kept_objects(detections, CONFIDENCE_COUNTING if record["tag"] == "counting" else CONFIDENCE)
    reasons: list[str] = []
    matched: list[list[Detected] | None] = []
    for clause in record["include"]:
        there = objects.get(clause["class"], [])
        found = there[: clause["count"]]
        if rules.exact and len(there) != clause["count"]:
            fault: str | None = f"expected {clause['class']}=={clause['count']}, found {len(there)}"
        else:
            fault = _clause_fault(clause, found, matched, colors or _own_colors)
        matched.append(None if fault else found)
        if fault:
            reasons.append(fault)
    for clause in (record.get("exclude") or ()) if rules.excludes else ():
        name, count = clause["class"], clause["count"]
        if len(objects.get(name, [])) >= count:
            reasons.append(f"expected {name}<{count}, found {len(objects.get(name, []))}")
    return {"correct": not reasons, "reason": "\n".join(reasons)}


def kept_objects(detections: Iterable[Detected], confidence: float) -> dict[str, list[Detected]]:
    """The objects that count, by class, the most confident first."""
    import numpy as np

    objects: dict[str, list[Detected]] = {}
    # Of equals the later comes first, as in the official argsort()[::-1].
    for found in sorted(detections, key=lambda d: np.float32(d.score))[::-1]:
        same = objects.setdefault(found.name, [])
        if is_confident(found.score, confidence) and len(same) < MAX_OBJECTS:
            same.append(found)
    return objects


def _own_colors(objects: Sequence[Detected], name: str) -> list[str]:
    if any(d.color is None for d in objects):
        raise UsageError(
            f"colours of {name!r} are asked for, and neither the detections nor a classifier give them"
        )
    return [str(d.color) for d in objects]


def _clause_fault(
    clause: Mapping[str, Any],
    found: list[Detected],
    matched: list[list[Detected] | None],
    colors: Callable[[Sequence[Detected], str], list[str]],
) -> str | None:
    """What is wrong with the objects of one `include` clause, or None."""
    name, count = clause["class"], clause["count"]
    if len(found) < count:
        return f"expected {name}>={count}, found {len(found)}"
    if "color" in clause:
        wanted, seen = clause["color"], colors(found, name)
        if seen.count(wanted) < count:
            listed = ", ".join(f"{seen.count(c)} {c}" for c in COLORS if c in seen)
            return f"expected {wanted} {name}>={count}, found {seen.count(wanted)} {wanted}; and {listed}"
    if "position" in clause:
        relation, group = clause["position"]
        targets = matched[group]
        if targets is None:
            return f"no target for {name} to be {relation}"
        for a in found:
            for b in targets:
                true = relations(a.box, b.box)
                if relation not in true:
                    return f"expected {name} {relation} target, found {' and '.join(true)} target"
    return None


def check_record(record: Mapping[str, Any]) -> None:
    """Raises InputError, naming the prompt and the field, unless a record has GenEval's `tag` and clauses."""
    prompt = f"prompt {str(record.get('prompt', ''))[:60]!r}"
    tag, include = record.get("tag"), record.get("include")
    if not isinstance(tag, str) or not isinstance(include, list) or not include:
        missing = "tag" if not isinstance(tag, str) else "include"
        raise InputError(
            f"{prompt} has no {missing!r}, so GenEval's rules cannot score it",
            hint="sample from GenEval's metadata file or from `sanactl prompts shapes`",
        )
    for number, clause in enumerate(include):
        _check_clause(clause, f"{prompt}: include[{number}]")
        if "position" in clause:
            position = clause["position"]
            if not isinstance(position, list | tuple) or len(position) != 2 or position[0] not in RELATIONS:
                raise InputError(
                    f"{prompt}: include[{number}]: position {position!r} is not [relation, target]"
                )
            if type(position[1]) is not int or not 0 <= position[1] < number:
                raise InputError(
                    f"{prompt}: include[{number}]: position's target {position[1]!r} is no clause before"
                )
    exclude = record.get("exclude") or []
    if not isinstance(exclude, list):
        raise InputError(f"{prompt}: 'exclude' is a {type(exclude).__name__}, not a list")
    for number, clause in enumerate(exclude):
        _check_clause(clause, f"{prompt}: exclude[{number}]")


def _check_clause(clause: Any, where: str) -> None:
    if not isinstance(clause, dict) or not isinstance(clause.get("class"), str):
        raise InputError(f"{where}: not an object with a 'class'")
    if type(clause.get("count")) is not int or clause["count"] < 1:
        raise InputError(
            f"{where}: 'count' must be a whole number of at least 1, got {clause.get('count')!r}"
        )
    if "color" in clause and clause["color"] not in COLORS:
        raise InputError(f"{where}: color {clause['color']!r} is none of {', '.join(COLORS)}")
