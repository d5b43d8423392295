"""One shard of `encode`: rows of the data as the tensors that `sanactl.data.encoded` reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sanactl.data.buckets import nearest_bucket
from sanactl.data.long_captions import LongCaptions
from sanactl.data.scored_captions import ScoredChoice
from sanactl.data.sources import fit
from sanactl.data.streams import EndOfExamples, StreamTable
from sanactl.data.tables import ScoredExamples
from sanactl.errors import InputError
from sanactl.files.dtypes import WEIGHT_DTYPES

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from sanactl.data.tables import Examples
    from sanactl.model.encoders import Encoders

__all__ = ["Shard", "encode_shard", "in_dtype"]

Size = tuple[int, int]  # (height, width) in pixels


@dataclass
class Shard:
    """The result of encoding some rows.

    Attributes:
        tensors: `latents`, `text` and `shapes`; with a choice by scores `scores`, too.
        read: rows that were there, unreadable ones counted.
        skipped: a line for each unreadable one.
        ended: whether the data ended before the last row.
        long: the captions that were cut.
    """

    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    read: int = 0
    skipped: list[str] = field(default_factory=list)
    ended: bool = False
    long: LongCaptions = field(default_factory=LongCaptions)


def encode_shard(
    examples: Examples,
    rows: range,
    encoders: Encoders,
    sizes: Sequence[Size],
    *,
    dtype: str,
    batch_size: int,
    on_bad: Callable[[int, InputError], None],
) -> Shard:
    """Encodes rows, in batches of images of one size.

    Args:
        examples: images with captions.
        rows: which.
        encoders: autoencoder and text encoder.
        sizes: each image is brought to the one whose ratio is nearest.
        dtype: "fp32", "bf16" or "fp16".
        batch_size: images, and captions, at once.
        on_bad: told of each unreadable image, with how many there were; it may raise.

    Raises:
        InputError: an encoding is not finite in this dtype.
    """
    shard = Shard()
    latents: dict[int, torch.Tensor] = {}
    captions: dict[int, list[str]] = {}
    waiting: dict[Size, list[tuple[int, NDArray[np.uint8]]]] = {}
    if isinstance(examples, StreamTable):
        examples.release(rows.start)
    for row in rows:
        try:
            image = examples.image(row)
        except EndOfExamples:
            shard.ended = True
            break
        except InputError as error:
            shard.read += 1
            shard.skipped.append(error.message)
            on_bad(len(shard.skipped), error)
            continue
        shard.read += 1
        captions[row] = examples.texts(row)
        size = nearest_bucket(image.shape[0], image.shape[1], sizes) if len(sizes) > 1 else sizes[0]
        group = waiting.setdefault(size, [])
        group.append((row, fit(image, size)))
        if len(group) == batch_size:
            latents.update(_latents(waiting.pop(size), examples.name, encoders, dtype))
    for group in waiting.values():
        latents.update(_latents(group, examples.name, encoders, dtype))
    done = sorted(latents)
    in_order = [text for row in done for text in captions[row]]
    shard.long.add(in_order, encoders)
    texts = _texts(in_order, encoders, dtype, batch_size)
    columns = len(examples.captions.columns)
    shard.tensors = _pack([latents[row] for row in done], texts, columns, dtype, encoders.text_width)
    if isinstance(examples.captions, ScoredChoice) and isinstance(examples, ScoredExamples):
        import torch

        scores = [examples.scores(row) for row in done]
        shard.tensors["scores"] = torch.tensor(scores, dtype=torch.float64).reshape(len(done), -1)
    return shard


def in_dtype(numbers: torch.Tensor, dtype: str, what: str) -> torch.Tensor:
    """Numbers in a shard's dtype, on the CPU.

    Raises:
        InputError: they are not finite in it.
    """
    import torch

    cast = numbers.to("cpu", getattr(torch, WEIGHT_DTYPES[dtype].torch))
    if not torch.isfinite(cast).all():
        raise InputError(f"the encoding of {what} is not finite in {dtype}", hint="use --dtype fp32")
    return cast


def _latents(
    group: Sequence[tuple[int, NDArray[np.uint8]]], name: str, encoders: Encoders, dtype: str
) -> dict[int, torch.Tensor]:
    import numpy as np

    encoded = encoders.latents(np.stack([image for _, image in group]))
    cast = in_dtype(encoded, dtype, f"rows {group[0][0]} to {group[-1][0]} of {name}")
    return {row: latent for (row, _), latent in zip(group, cast, strict=True)}


def _texts(captions: Sequence[str], encoders: Encoders, dtype: str, batch_size: int) -> list[torch.Tensor]:
    """Embeddings [tokens, D], no tokens for an empty caption; a caption that comes often is encoded once."""
    import torch

    known = {"": torch.zeros(0, encoders.text_width, dtype=getattr(torch, WEIGHT_DTYPES[dtype].torch))}
    different = sorted(set(captions) - {""})
    for start in range(0, len(different), batch_size):
        some = different[start : start + batch_size]
        embedded = encoders.texts(some)
        known.update((c, in_dtype(t, dtype, repr(c[:60]))) for c, t in zip(some, embedded, strict=True))
    return [known[c] for c in captions]


def _pack(
    latents: Sequence[torch.Tensor], texts: Sequence[torch.Tensor], columns: int, dtype: str, width: int
) -> dict[str, torch.Tensor]:
    """Latents [C, h, w] of N rows and N * `columns` embeddings [tokens, `width`] as a shard's three tensors."""
    import torch

    nothing = torch.zeros(0, dtype=getattr(torch, WEIGHT_DTYPES[dtype].torch))
    spans = torch.tensor([latent.shape[1:] for latent in latents], dtype=torch.int32)
    tokens = torch.tensor([len(text) for text in texts], dtype=torch.int32)
    return {
        "latents": torch.cat([nothing, *(latent.flatten() for latent in latents)]),
        "text": torch.cat([nothing.reshape(0, width), *texts]),
        "shapes": torch.cat([spans.reshape(-1, 2), tokens.reshape(-1, columns)], dim=1),
    }
