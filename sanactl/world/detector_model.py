"""The built-in world's Mask2Former: the official GenEval detector's class, small enough to be trained on a CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sanactl.shapes.vocabulary import SHAPES

if TYPE_CHECKING:
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation

__all__ = ["IMAGE_SIZE", "detector_config", "new_detector", "preprocessor_config"]

# Px a side that the built-in world's pictures are fitted into; the official detector has 1333 x 800.
IMAGE_SIZE = 64
# Queries begin as places on a grid of so many rows and columns.
QUERY_GRID = 5


def detector_config(**sizes: Any) -> Mask2FormerConfig:
    """The config: that of the official detector with smaller numbers.

    Args:
        sizes: fields of the config that are to be others, and `swin`, a dict of those of the backbone.
    """
    from transformers import Mask2FormerConfig, SwinConfig

    swin = {
        "image_size": IMAGE_SIZE,
        # Half of the official one's: an object has 8 to 30 px, and its outline decides whether it counts.
        "patch_size": 2,
        "embed_dim": 32,
        "depths": [2, 2, 2, 1],
        "num_heads": [2, 4, 4, 8],
        "window_size": 4,
        "mlp_ratio": 2.0,
        "drop_path_rate": 0.0,
        "out_features": ["stage1", "stage2", "stage3", "stage4"],
    } | sizes.pop("swin", {})
    fields: dict[str, Any] = {
        "feature_size": 64,
        "mask_feature_size": 64,
        "hidden_dim": 64,
        "encoder_feedforward_dim": 128,
        "encoder_layers": 1,
        "decoder_layers": 4,
        "num_attention_heads": 4,
        "dim_feedforward": 128,
        "num_queries": QUERY_GRID**2,
        "id2label": dict(enumerate(SHAPES)),
        "label2id": {name: number for number, name in enumerate(SHAPES)},
    }
    return Mask2FormerConfig(backbone_config=SwinConfig(**swin), **fields | sizes)


def preprocessor_config() -> dict[str, Any]:
    """What stands in the folder's preprocessor_config.json; see `sanactl.scoring.detectors.mask2former_pixels.Fit`."""
    return {"size": {"longest_edge": IMAGE_SIZE, "shortest_edge": IMAGE_SIZE}, "size_divisor": 32}


def new_detector(seed: int = 0, **sizes: Any) -> Mask2FormerForUniversalSegmentation:
    """A detector with random weights; see `detector_config`.

    Each query begins at its place of the grid, and attends to what is near it: from random queries a model of this
    kind needs very long until each has a place of its own.
    """
    import torch
    from transformers import Mask2FormerForUniversalSegmentation

    torch.manual_seed(seed)
    model = Mask2FormerForUniversalSegmentation(detector_config(**sizes))
    transformer = model.model.transformer_module
    width = model.config.hidden_dim
    with torch.no_grad():
        # The embedding of a map whose cells are the grid's.
        places = transformer.position_embedder(
            torch.Size((1, width, QUERY_GRID, QUERY_GRID)), torch.device("cpu"), torch.float32
        )
        transformer.queries_embedder.weight.copy_(places[0].flatten(1).T)
        transformer.queries_features.weight.mul_(0.1)
        for layer in transformer.decoder.layers:
            query, key, _ = layer.cross_attn.in_proj_weight.chunk(3)
            key.copy_(query)
            query.mul_(2)
    return model
