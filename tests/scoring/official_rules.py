"""GenEval's rules once more, derived step by step from what the official `evaluate_images.py` and `summary_scores.py` do.

Nothing of sanactl's own rules is used here: tests compare the two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
RELATIONS = ("left of", "right of", "above", "below")


def published_relations(a, b):
    """`relative_position` in its arrays: boxes as [corner, axis]."""
    a, b = (np.array(box, dtype=np.float32).reshape(2, 2) for box in (a, b))
    offset = a.mean(axis=0) - b.mean(axis=0)
    reach = 0.1 * (np.abs(a[1] - a[0]) + np.abs(b[1] - b[0]))
    revised = np.sign(offset) * np.maximum(np.abs(offset) - reach, 0)
    if (np.abs(revised) < 1e-3).all():
        return set()
    dx, dy = revised / np.linalg.norm(offset)
    tests = {"left of": dx < -0.5, "right of": dx > 0.5, "above": dy < -0.5, "below": dy > 0.5}
    return {name for name, true in tests.items() if true}


def published_verdict(detections, record):
    """The official pipeline: threshold, order and cap per class, then `evaluate`; (correct, reasons)."""
    threshold = 0.9 if record["tag"] == "counting" else 0.3
    objects = {}
    for name in {d.name for d in detections}:
        mine = [d for d in detections if d.name == name]
        scores = np.array([d.score for d in mine], dtype=np.float32)
        order = np.argsort(scores, kind="stable")[::-1]
        kept = [mine[i] for i in order[scores[order] > threshold]][:16]
        if kept:
            objects[name] = kept
    right, reasons = True, []
    groups: list[Any] = []
    for req in record["include"]:
        name, ok = req["class"], True
        found = objects.get(name, [])[: req["count"]]
        if len(found) < req["count"]:
            ok = False
            reasons.append(f"expected {name}>={req['count']}, found {len(found)}")
        else:
            if "color" in req:
                seen = [d.color for d in found]
                if seen.count(req["color"]) < req["count"]:
                    ok = False
                    tally = ", ".join(f"{seen.count(c)} {c}" for c in COLORS if c in seen)
                    reasons.append(
                        f"expected {req['color']} {name}>={req['count']}, "
                        f"found {seen.count(req['color'])} {req['color']}; and {tally}"
                    )
            if "position" in req and ok:
                wanted, target = req["position"]
                if groups[target] is None:
                    ok = False
                    reasons.append(f"no target for {name} to be {wanted}")
                else:
                    pairs = ((x, y) for x in found for y in groups[target])
                    for x, y in pairs:
                        rels = published_relations(x.box, y.box)
                        if wanted not in rels:
                            ok = False
                            ordered = " and ".join(r for r in RELATIONS if r in rels)
                            reasons.append(f"expected {name} {wanted} target, found {ordered} target")
                            break
        right &= ok
        groups.append(found if ok else None)
    for req in record.get("exclude", []):
        if len(objects.get(req["class"], [])) >= req["count"]:
            right = False
            reasons.append(f"expected {req['class']}<{req['count']}, found {len(objects[req['class']])}")
    return right, "\n".join(reasons)


def published_summary(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """`summary_scores.py`: images and prompts that are right, each task's share of images, and the mean of these."""
    prompts: dict[str, list[bool]] = {}
    tasks: dict[str, list[bool]] = {}
    for result in results:
        prompts.setdefault(str(result["metadata"]), []).append(result["correct"])
        tasks.setdefault(result["tag"], []).append(result["correct"])
    shares = {tag: sum(found) / len(found) for tag, found in tasks.items()}
    return {
        "images": len(results),
        "prompts": len(prompts),
        "correct prompts": sum(map(any, prompts.values())) / len(prompts),
        "tasks": shares,
        "overall": sum(shares.values()) / len(shares),
    }
