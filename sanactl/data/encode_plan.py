"""The plan of `encode`, made before any image is encoded: settings, sizes, the rows of each shard, the key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sanactl.data.buckets import bucket_sizes
from sanactl.data.captions import CaptionChoice
from sanactl.data.components import ENCODERS, component_identity, settings_digest
from sanactl.data.scored_captions import ScoredChoice
from sanactl.data.streams import StreamTable
from sanactl.errors import UsageError
from sanactl.files.dtypes import WEIGHT_DTYPES
from sanactl.model.conditioning import pixels_per_latent

if TYPE_CHECKING:
    from sanactl.checkpoint.open import Checkpoint
    from sanactl.data.tables import Examples

__all__ = ["EncodePlan", "EncodeSettings", "plan_encoding"]

# A killed run loses at most a shard a process, so that one holds no more examples than this, however small.
MOST_ROWS = 4096
# Tokens that a caption is taken to have when shards are planned, before any is encoded.
TYPICAL_TOKENS = 64


@dataclass(frozen=True)
class EncodeSettings:
    """What to encode, and how.

    Attributes:
        height: of the images, in pixels. With `buckets` only the product of height and width counts.
        width: of the images, in pixels.
        max_sequence_length: tokens that are kept of a caption.
        complex_human_instruction: whether SANA's instruction stands before every caption.
        dtype: of the shards, "fp32", "bf16" or "fp16". The models run in bf16 for bf16, else in fp32.
        buckets: keep each image's aspect ratio, nearly.
        count: how many examples to encode, the first ones; 0 takes all.
        batch_size: images, and captions, that are encoded at once.
        shard_bytes: about the size of a shard.
        max_bad: how many images may be unreadable.
    """

    height: int
    width: int
    max_sequence_length: int = 300
    complex_human_instruction: bool = True
    dtype: str = "fp32"
    buckets: bool = False
    count: int = 0
    batch_size: int = 16
    shard_bytes: int = 10**9
    max_bad: int = 0


@dataclass(frozen=True)
class EncodePlan:
    """What is known of the shards before the first is written.

    Attributes:
        most: rows, as far as they are known before reading: a stream may end before `count`. None: unknown.
        exact: whether there are `most` rows for certain.
        rows: of a shard.
        sizes: (height, width) that images are brought to, each to the nearest by its ratio.
        about: what the shards are a function of, for the index.
        key: a digest of that.
    """

    most: int | None
    exact: bool
    rows: int
    sizes: list[tuple[int, int]]
    about: dict[str, Any]
    key: str

    def shard(self, number: int) -> range | None:
        """The rows of a shard; None where there are none."""
        first = number * self.rows
        if self.most is not None and first >= self.most:
            return None
        return range(first, first + self.rows if self.most is None else min(first + self.rows, self.most))


def plan_encoding(checkpoint: Checkpoint, examples: Examples, settings: EncodeSettings) -> EncodePlan:
    """The plan for a checkpoint's autoencoder and text encoder.

    Raises:
        UsageError: an unknown dtype; or the data have no end, and no `count` says how many are wanted.
    """
    if settings.dtype not in WEIGHT_DTYPES:
        raise UsageError(
            f"unknown dtype {settings.dtype!r}", hint=f"choose one of {', '.join(WEIGHT_DTYPES)}"
        )
    is_stream = isinstance(examples, StreamTable)
    known = examples.count
    if known is None and not settings.count and not is_stream:
        raise UsageError(f"{examples.name} has no end", hint="say how many with --count")
    if known is not None and settings.count:
        known = min(known, settings.count)
    factor = pixels_per_latent(checkpoint)
    multiple = factor * int(checkpoint.config.get("patch_size", 1))
    channels, width = int(checkpoint.config["in_channels"]), int(checkpoint.config["caption_channels"])
    size = (settings.height, settings.width)
    columns = len(examples.captions.columns)
    tokens = columns * min(TYPICAL_TOKENS, settings.max_sequence_length)
    numbers = channels * (size[0] // factor) * (size[1] // factor) + tokens * width
    row = numbers * (4 if settings.dtype == "fp32" else 2)
    rows = max(1, min(MOST_ROWS, settings.shard_bytes // row))
    about = {
        "resolution": list(size),
        "factor": factor,
        "multiple": multiple,
        "channels": channels,
        "text_width": width,
        "max_sequence_length": settings.max_sequence_length,
        "complex_human_instruction": settings.complex_human_instruction,
        "captions": str(examples.captions),
        "buckets": settings.buckets,
        "dtype": WEIGHT_DTYPES[settings.dtype].name,
        **_scored(examples.captions),
        "rows": rows,
        "count": settings.count,
        "encoders": {part: component_identity(checkpoint, part) for part in ENCODERS},
        "data": {"name": examples.name, "identity": examples.identity},
    }
    return EncodePlan(
        most=known if known is not None else settings.count or None,
        exact=known is not None or not is_stream,
        rows=rows,
        sizes=bucket_sizes(*size, multiple) if settings.buckets else [size],
        about=about,
        # What the data are called is for people: any path to the same files is the same data.
        key=settings_digest({**about, "data": {"identity": examples.identity}}),
    )


def _scored(captions: CaptionChoice) -> dict[str, Any]:
    """The settings of a choice by scores: its rule, and of each score of a row the caption's column."""
    if not isinstance(captions, ScoredChoice):
        return {}
    return {"caption_choice": str(captions.rule), "scored": list(captions.scored)}
