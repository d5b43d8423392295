"""The built-in world's detector in training: its losses, with heads that are thrown away afterwards.

Four things differ from Mask2Former's own loss, since the training is short and the scores are to be those of another
detector. Targets of the class are soft: the probability is to be the programmatic detector's score. One assignment of
objects to queries, from the last layer, holds for all layers. Linear heads on the pixels' features learn which shape
covers a pixel, where its middle is and how good a shape it is (the log-odds of the programmatic detector's score), which
teaches the backbone earlier than the queries can. The queries' features learn those log-odds, too: they tell more than
the side of a confidence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import nn
from torch.nn import functional as F

from sanactl.scoring.detectors.mask2former_pixels import MEAN, STD
from sanactl.scoring.geneval.rules import CONFIDENCE, CONFIDENCE_COUNTING
from sanactl.shapes.vocabulary import SHAPES
from sanactl.world.detector_data import OBJECTS, SCORE, SHAPE, Scenes
from sanactl.world.detector_model import IMAGE_SIZE, QUERY_GRID

if TYPE_CHECKING:
    from transformers import Mask2FormerForUniversalSegmentation

__all__ = ["DetectorNetwork", "Targets", "soft_score"]

CLASS_WEIGHT, MASK_WEIGHT, DICE_WEIGHT, DENSE_WEIGHT, ODDS_WEIGHT = 2.0, 2.0, 1.0, 0.5, 0.5
# Log-odds past it are taken as this: no confidence is near.
MOST_ODDS = 5.0
# In the assignment: of an object's distance to a query's place on the grid, in sides of the picture.
NEAR_WEIGHT = 2.0


class Targets:
    """The objects of a batch, all in one row.

    Attributes:
        pixels: float32 [B, 3, 64, 64], normalised.
        owners: int64 [B, 64, 64], as in `Scenes`.
        picture: int64 [K], the picture of each object.
        shape: int64 [K].
        score: float32 [K], see `soft_score`.
        odds: float32 [K], the log-odds of the programmatic score.
        mask: float32 [K, 64, 64].
        near: float32 [K, 64, 64], 1 within 4 px of the mask.
        middle: float32 [K, 2], x and y in sides of the picture.
    """

    def __init__(self, scenes: Scenes, mirrored: NDArray[np.bool_]) -> None:
        flipped = mirrored[:, None, None]
        images = np.where(flipped[..., None], scenes.images[:, :, ::-1], scenes.images)
        owners = np.where(flipped, scenes.owners[:, :, ::-1], scenes.owners)
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float()
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
        self.pixels = (pixels - mean) / std
        self.owners = torch.from_numpy(owners).long()
        picture, place = np.nonzero(scenes.objects[..., SCORE] > 0)
        self.picture = torch.from_numpy(picture)
        self.place = torch.from_numpy(place)
        self.shape = torch.from_numpy(scenes.objects[picture, place, SHAPE]).long()
        score = torch.from_numpy(scenes.objects[picture, place, SCORE])
        self.score = torch.from_numpy(soft_score(scenes.objects[picture, place, SCORE]))
        self.odds = score.clamp(1e-6, 1 - 1e-6).logit().clamp(-MOST_ODDS, MOST_ODDS)
        self.mask = (self.owners[self.picture] == self.place[:, None, None] + 1).float()
        # Max pooling of 9 px, one axis after the other.
        rows = F.max_pool2d(self.mask[:, None], (9, 1), 1, (4, 0))
        self.near = F.max_pool2d(rows, (1, 9), 1, (0, 4))[:, 0]
        axis = (torch.arange(IMAGE_SIZE) + 0.5) / IMAGE_SIZE
        area = self.mask.sum((1, 2)).clamp(min=1)
        self.middle = torch.stack(
            [(self.mask * axis).sum((1, 2)), (self.mask * axis[:, None]).sum((1, 2))], 1
        )
        self.middle /= area[:, None]


def soft_score(score: NDArray[np.float32]) -> NDArray[np.float32]:
    """The class probability that an object of a programmatic score is to have.

    It is on the same side of both of GenEval's confidences, and jumps at each, symmetrically about it: where a model is
    in doubt between two sides, its mean is then at the confidence.
    """
    low, high = CONFIDENCE, CONFIDENCE_COUNTING
    knots = [0, low, low, high, high, 1]
    values = [0.02, 0.10, 0.50, 0.82, 0.98, 0.99]
    # A hair apart, so that np.interp jumps.
    places = np.array(knots) + np.array([0, -1e-6, 0, -1e-6, 0, 0])
    found: NDArray[np.float32] = np.interp(score, places, values).astype(np.float32)
    return found


class DetectorNetwork(nn.Module):
    """A Mask2Former with the heads of its auxiliary losses."""

    def __init__(self, model: Mask2FormerForUniversalSegmentation) -> None:
        super().__init__()
        self.model = model
        self.dense = nn.Conv2d(model.config.mask_feature_size, len(SHAPES) + 1 + 3, 1)
        self.odds = nn.Linear(model.config.hidden_dim, 1)
        side = (torch.arange(QUERY_GRID) + 0.5) / QUERY_GRID
        self.register_buffer("grid", torch.cartesian_prod(side, side).flip(1), persistent=False)

    def loss(
        self, targets: Targets, none_weight: float, near_weight: float
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """The loss of a batch, and figures to show.

        Args:
            none_weight: of a query that is no object, beside 1 of one that is.
            near_weight: of the distance in the assignment.
        """
        dense_features: list[torch.Tensor] = []
        handle = self.model.model.pixel_level_module.decoder.register_forward_hook(
            lambda module, given, out: dense_features.append(out.mask_features)
        )
        with torch.autocast("cpu", torch.bfloat16):
            out = self.model.model(targets.pixels, output_hidden_states=True, return_dict=True)
            states = torch.stack([s.transpose(0, 1) for s in out.transformer_decoder_intermediate_states])
            logits = self.model.class_predictor(states).float()
            odds = self.odds(states).float()[..., 0]
            dense = self.dense(dense_features[0]).float()
        handle.remove()
        masks = [m.float() for m in out.masks_queries_logits]
        query = self.assign(logits[-1], masks[-1], targets, near_weight)
        total, parts = logits.new_zeros(()), {}
        # The first masks come from the queries alone; they decide where the first layer looks.
        for layer in range(len(masks)):
            classes = class_loss(logits[layer], query, targets, none_weight)
            covered, dice = mask_losses(masks[layer][targets.picture, query], targets)
            off = F.smooth_l1_loss(odds[layer][targets.picture, query], targets.odds, reduction="sum")
            off = off / max(len(query), 1)
            total = total + CLASS_WEIGHT * classes + MASK_WEIGHT * covered + DICE_WEIGHT * dice
            total = total + ODDS_WEIGHT * off
            parts = {"class": classes.item(), "mask": covered.item(), "dice": dice.item(), "odds": off.item()}
        found = dense_loss(dense, targets)
        return total / len(masks) + DENSE_WEIGHT * found, parts | {"dense": found.item()}

    @torch.no_grad()
    def assign(
        self, logits: torch.Tensor, masks: torch.Tensor, targets: Targets, near_weight: float
    ) -> torch.Tensor:
        """The query of each object, int64 [K]; no two objects of a picture have the same."""
        picture = targets.picture
        probability = logits.softmax(-1)[picture, :, targets.shape]
        small = F.avg_pool2d(targets.mask[:, None], IMAGE_SIZE // masks.shape[-1])[:, 0].flatten(1)
        mine = masks[picture].sigmoid().flatten(2)
        both = torch.einsum("kqp,kp->kq", mine, small)
        dice = 1 - (2 * both + 1) / (mine.sum(-1) + small.sum(-1)[:, None] + 1)
        far = (targets.middle[:, None] - self.grid).norm(dim=-1)
        cost = (-2 * probability + 2 * dice + near_weight * far).numpy()
        query = np.empty(len(picture), dtype=np.int64)
        for number in range(len(logits)):
            rows = np.flatnonzero(picture.numpy() == number)
            if len(rows):
                row, column = linear_sum_assignment(cost[rows])
                query[rows[row]] = column
        return torch.from_numpy(query)


def class_loss(
    logits: torch.Tensor, query: torch.Tensor, targets: Targets, none_weight: float
) -> torch.Tensor:
    """Cross-entropy with soft targets over the classes and "no object"."""
    wanted = torch.zeros_like(logits)
    wanted[..., -1] = 1
    wanted[targets.picture, query, targets.shape] = targets.score
    wanted[targets.picture, query, -1] = 1 - targets.score
    weight = torch.full(logits.shape[:2], none_weight)
    weight[targets.picture, query] = 1
    loss = -(wanted * logits.log_softmax(-1)).sum(-1)
    return (loss * weight).sum() / max(len(query), 1)


def mask_losses(masks: torch.Tensor, targets: Targets) -> tuple[torch.Tensor, torch.Tensor]:
    """Binary cross-entropy (near the object and away from it alike) and dice of the objects' masks, at 64 x 64."""
    if not len(masks):
        return masks.sum(), masks.sum()
    large = F.interpolate(masks[:, None], size=IMAGE_SIZE, mode="bilinear", align_corners=False)[:, 0]
    near = targets.near
    each = F.binary_cross_entropy_with_logits(large, targets.mask, reduction="none")
    area = near.sum((1, 2)).clamp(min=1)
    away = (1 - near).sum((1, 2)).clamp(min=1)
    covered = (each * near).sum((1, 2)) / area + 0.5 * (each * (1 - near)).sum((1, 2)) / away
    share = large.sigmoid()
    both = (share * targets.mask).sum((1, 2))
    dice = 1 - (2 * both + 1) / (share.sum((1, 2)) + targets.mask.sum((1, 2)) + 1)
    return covered.mean(), dice.mean()


def dense_loss(dense: torch.Tensor, targets: Targets) -> torch.Tensor:
    """Of each pixel of the feature map: the shape that covers it, the way to that object's middle, and its odds."""
    step = IMAGE_SIZE // dense.shape[-1]
    owners = targets.owners[:, ::step, ::step]
    covered = torch.full_like(owners, len(SHAPES))
    way = torch.zeros(*owners.shape, 2)
    table = torch.zeros(len(owners), OBJECTS + 1, 4)
    table[..., 0] = len(SHAPES)
    table[targets.picture, targets.place + 1, 0] = targets.shape.float()
    table[targets.picture, targets.place + 1, 1:3] = targets.middle
    table[targets.picture, targets.place + 1, 3] = targets.odds
    row = torch.arange(len(owners))[:, None, None]
    known = table[row, owners]
    covered = known[..., 0].long()
    axis = (torch.arange(owners.shape[-1]) * step + 0.5) / IMAGE_SIZE
    way = known[..., 1:3] - torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)
    inside = (owners > 0).float()
    shapes = F.cross_entropy(dense[:, :-3], covered, reduction="none")
    # Half of the weight on objects, half on the background.
    share = inside.mean().clamp(0.02, 0.98)
    weight = 0.5 * inside / share + 0.5 * (1 - inside) / (1 - share)
    off = (dense[:, -3:-1].permute(0, 2, 3, 1) - 4 * way).abs().sum(-1)
    off = off + F.smooth_l1_loss(dense[:, -1], known[..., 3], reduction="none")
    return (shapes * weight).mean() + (off * inside).sum() / inside.sum().clamp(min=1)
