"""NVILA as the paper's verifier has it: SigLIP on tiles, a projector that merges 3 x 3 patches, and Qwen 2.

After NVlabs/VILA (llava/remote_code: mm_utils.py, base_projector.py, media_encoder.py, modeling_vila.py), in transformers'
own classes, so that no code of a repository runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["NvilaModel", "Projector", "tile_grid", "tiles_of"]

# Tiles that the vision tower sees at once.
_TILES = 16


def tile_grid(width: int, height: int, *, size: int, least: int, most: int) -> tuple[int, int]:
    """(columns, rows) of the tiles of `size` pixels that an image is cut into.

    The grid of `least` to `most` tiles whose ratio of sides is nearest to the image's. Among equals, a larger one if the
    image has more than half of its pixels.
    """
    # The order of equals is that of the reference: a set's, sorted by the number of tiles.
    grids = sorted(
        {
            (columns, rows)
            for columns in range(1, most + 1)
            for rows in range(1, most + 1)
            if least <= columns * rows <= most
        },
        key=lambda grid: grid[0] * grid[1],
    )
    nearest, best = math.inf, (1, 1)
    for columns, rows in grids:
        apart = abs(width / height - columns / rows)
        if apart < nearest or (apart == nearest and width * height > 0.5 * size * size * columns * rows):
            nearest, best = apart, (columns, rows)
    return best


def tiles_of(image: Image.Image, *, size: int, least: int = 1, most: int = 12) -> list[Image.Image]:
    """The tiles of an image, row by row, and a thumbnail of it if there is more than one.

    Returns:
        Images of size x size pixels.
    """
    columns, rows = tile_grid(image.width, image.height, size=size, least=least, most=most)
    whole = image.resize((columns * size, rows * size))
    tiles = [
        whole.crop((x * size, y * size, (x + 1) * size, (y + 1) * size))
        for y in range(rows)
        for x in range(columns)
    ]
    return tiles if len(tiles) == 1 else [*tiles, image.resize((size, size))]


class _Cells(nn.Module):
    """3 x 3 neighbouring patches as one, in the order (row, column, channel); zeros fill the last row and column."""

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        batch, count, channels = patches.shape
        side = math.isqrt(count)
        grid = patches.reshape(batch, side, side, channels)
        extra = -side % 3
        grid = nn.functional.pad(grid, (0, 0, 0, extra, 0, extra))
        cells = (side + extra) // 3
        grid = grid.reshape(batch, cells, 3, cells, 3, channels).transpose(2, 3)
        return grid.reshape(batch, cells * cells, 9 * channels)


class Projector(nn.Module):
    """`mlp_downsample_3x3_fix`: patches [tiles, n, vision] to [tiles, ceil(sqrt(n) / 3)^2, text].

    Args:
        vision, text: widths of the vision tower and the language model.
    """

    def __init__(self, vision: int, text: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _Cells(),
            nn.LayerNorm(9 * vision),
            nn.Linear(9 * vision, 3 * vision),
            nn.GELU(),
            nn.LayerNorm(3 * vision),
            nn.Linear(3 * vision, text),
            nn.GELU(),
            nn.Linear(text, text),
        )

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        projected: torch.Tensor = self.layers(patches)
        return projected


class NvilaModel(nn.Module):
    """The three parts.

    Args:
        vision_tower: a `SiglipVisionModel`.
        mm_projector: see `Projector`.
        llm: a `Qwen2ForCausalLM`.
        layer: which of the vision tower's hidden states are the features.
        image_token: the id in the text that stands for a tile.
        newline: the ids that follow each tile's features.
    """

    def __init__(
        self,
        vision_tower: nn.Module,
        mm_projector: nn.Module,
        llm: nn.Module,
        *,
        layer: int,
        image_token: int,
        newline: Sequence[int],
    ) -> None:
        super().__init__()
        self.vision_tower: Any = vision_tower
        self.mm_projector = mm_projector
        self.llm: Any = llm
        self.layer, self.image_token, self.newline = layer, image_token, list(newline)

    @property
    def config(self) -> Any:
        return self.llm.config

    @property
    def device(self) -> torch.device:
        device: torch.device = self.llm.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.llm.dtype
        return dtype

    def features(self, tiles: torch.Tensor) -> torch.Tensor:
        """[tiles, tokens, text width] of tiles [tiles, 3, size, size]."""
        found = []
        for part in tiles.split(_TILES):
            states = self.vision_tower(part, output_hidden_states=True).hidden_states
            found.append(self.mm_projector(states[self.layer]))
        return torch.cat(found)

    def next_logits(
        self, tiles: torch.Tensor, counts: Sequence[int], texts: Sequence[torch.Tensor]
    ) -> torch.Tensor:
        """The logits of the token that follows each text.

        Args:
            tiles: [sum of counts, 3, size, size], the tiles of the first image, then those of the second...
            counts: tiles of each image.
            texts: ids of each dialogue; the image token occurs as often as its image has tiles.

        Returns:
            [images, vocabulary].
        """
        embed = self.llm.get_input_embeddings()
        end = embed(torch.tensor(self.newline, device=self.device))
        features = self.features(tiles).to(self.dtype).split(list(counts))
        rows = [
            self._row(embed(ids), ids, of_image, end) for ids, of_image in zip(texts, features, strict=True)
        ]
        # The next token follows the last column, so padding is on the left.
        length = max(map(len, rows))
        inputs = torch.stack([nn.functional.pad(row, (0, 0, length - len(row), 0)) for row in rows])
        lengths = torch.tensor([len(row) for row in rows], device=self.device)
        mask = torch.arange(length, device=self.device) >= (length - lengths)[:, None]
        output = self.llm(
            inputs_embeds=inputs,
            attention_mask=mask.long(),
            position_ids=(mask.long().cumsum(-1) - 1).clamp(min=0),
            logits_to_keep=1,
            use_cache=False,
        )
        logits: torch.Tensor = output.logits[:, -1]
        return logits

    def _row(
        self, embedded: torch.Tensor, ids: torch.Tensor, features: torch.Tensor, end: torch.Tensor
    ) -> torch.Tensor:
        """A text's embeddings with each image token replaced by a tile's features and the newline."""
        places = (ids == self.image_token).nonzero()[:, 0].tolist()
        assert len(places) == len(features)
        parts, last = [], 0
        for place, tile in zip(places, features, strict=True):
            parts += [embedded[last:place], tile, end]
            last = place + 1
        return torch.cat([*parts, embedded[last:]])
