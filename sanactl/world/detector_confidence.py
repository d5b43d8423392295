"""The confidences of the built-in world's Mask2Former, fitted to those of the programmatic detector after its training.

A model in doubt gives an object the mean of what such objects had in training, which need not lie on the right side of
GenEval's two confidences (0.3, and 0.9 for counting). A factor on all class logits and a summand on that of "no object"
move both places; they are chosen on samples that the training did not use, and become part of the weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sanactl.scoring.geneval.rules import CONFIDENCE, CONFIDENCE_COUNTING
from sanactl.shapes.vocabulary import SHAPES
from sanactl.world.detector_data import SCORE, SHAPE, Scenes

if TYPE_CHECKING:
    import torch
    from transformers import Mask2FormerForUniversalSegmentation

__all__ = ["agreement", "fit_confidences", "set_confidences"]

FACTORS = tuple(1 + 0.125 * step for step in range(13))
SUMMANDS = tuple(0.125 * step for step in range(-8, 13))
BATCH = 64


def set_confidences(model: Mask2FormerForUniversalSegmentation, scenes: Scenes) -> tuple[float, float]:
    """Fits a model's confidences to pictures that its training did not use, and changes its weights.

    Returns:
        the factor and the summand, see `fit_confidences`.
    """
    import torch

    factor, summand = fit_confidences(class_logits(model, scenes), object_counts(scenes))
    with torch.no_grad():
        model.class_predictor.weight.mul_(factor)
        model.class_predictor.bias.mul_(factor)
        model.class_predictor.bias[-1] += summand
    return factor, summand


def class_logits(model: Mask2FormerForUniversalSegmentation, scenes: Scenes) -> NDArray[np.float64]:
    """The class logits of a model's queries, [pictures, queries, shapes + 1]."""
    import torch

    from sanactl.world.detector_network import Targets

    found: list[torch.Tensor] = []
    model.eval()
    with torch.no_grad():
        for first in range(0, len(scenes), BATCH):
            part = scenes.part(np.arange(first, min(first + BATCH, len(scenes))))
            pixels = Targets(part, np.zeros(len(part), dtype=np.bool_)).pixels
            found.append(model(pixel_values=pixels).class_queries_logits.double())
    numbers: NDArray[np.float64] = torch.cat(found).numpy()
    return numbers


def object_counts(scenes: Scenes) -> NDArray[np.intp]:
    """How many objects of each shape are above each of GenEval's confidences, [pictures, 2, shapes]."""
    score, shape = scenes.objects[..., SCORE], scenes.objects[..., SHAPE].astype(int)
    each = [
        [((score > limit) & (shape == number)).sum(1) for number in range(len(SHAPES))]
        for limit in (CONFIDENCE, CONFIDENCE_COUNTING)
    ]
    return np.array(each).transpose(2, 0, 1)


def agreement(logits: NDArray[np.float64], counts: NDArray[np.intp], factor: float, summand: float) -> float:
    """The share of pictures whose numbers of objects of every shape are right, a mean over both confidences."""
    moved = factor * logits
    moved[..., -1] += summand
    moved -= moved.max(-1, keepdims=True)
    share = np.exp(moved)
    share = (share / share.sum(-1, keepdims=True))[..., :-1]
    found = np.stack([(share > limit).sum(1) for limit in (CONFIDENCE, CONFIDENCE_COUNTING)], axis=1)
    return float((found == counts).all(2).mean())


def fit_confidences(logits: NDArray[np.float64], counts: NDArray[np.intp]) -> tuple[float, float]:
    """The factor of all logits and the summand of the last class's at which the numbers of objects agree most often.

    Args:
        logits: [pictures, queries, shapes + 1].
        counts: [pictures, 2, shapes], see `object_counts`.

    Returns:
        of equally good pairs the one that changes least; (1, 0) where there are no pictures.
    """
    if not len(logits):
        return 1.0, 0.0
    pairs = [(factor, summand) for factor in FACTORS for summand in SUMMANDS]
    return max(pairs, key=lambda pair: (agreement(logits, counts, *pair), -abs(pair[0] - 1) - abs(pair[1])))
