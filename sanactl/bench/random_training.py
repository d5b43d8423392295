"""A checkpoint with random weights and encoded data with random numbers, for measurements of training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sanactl.bench.synthetic import synthetic_plan
from sanactl.checkpoint.open import open_checkpoint
from sanactl.checkpoint.write import write_checkpoint
from sanactl.data.components import ENCODERS

if TYPE_CHECKING:
    from sanactl.checkpoint.open import Checkpoint
    from sanactl.data.encoded import EncodedData

__all__ = ["random_checkpoint", "random_encoded"]

# The tokens of a dropped caption; with SANA's tokenizer the empty prompt has two.
_EMPTY_TOKENS = 2


def random_checkpoint(
    path: Path, config: Mapping[str, Any], *, pixels: int, max_sequence_length: int = 300
) -> Checkpoint:
    """Writes a checkpoint in a config's shape, and opens it.

    The weights are N(0, 0.02^2). It names components that are not there, so only encoded data fit it.

    Args:
        pixels: a side of its images.
        max_sequence_length: text tokens that it is given.
    """
    plan = replace(
        synthetic_plan(config, sigma=0.02),
        components={part: {"source": "sanactl/random", "subfolder": part} for part in ENCODERS},
        sampling={
            "height": pixels,
            "width": pixels,
            "max_sequence_length": max_sequence_length,
            "complex_human_instruction": False,
        },
    )
    return open_checkpoint(write_checkpoint(plan, path))


@dataclass(frozen=True)
class _Rows:
    """What a plan of encoded data asks of the examples."""

    count: int
    captions: Any
    name: str = "random"
    identity: str = "random"


def random_encoded(
    path: Path, checkpoint: Checkpoint, *, images: int, tokens: tuple[int, int] = (10, 100), seed: int = 0
) -> EncodedData:
    """Writes a folder as `sanactl encode` does, with N(0, 1) for latents and embeddings, and opens it.

    Args:
        checkpoint: that the data are for.
        images: how many examples.
        tokens: the fewest and the most tokens of a caption, equally likely; cut to what the checkpoint takes.
        seed: of all numbers.
    """
    import torch

    from sanactl.data.captions import CaptionChoice
    from sanactl.data.encode_plan import EncodeSettings, plan_encoding
    from sanactl.data.encoded import EncodedData
    from sanactl.data.shard_folder import ShardFolder
    from sanactl.model.sampling_settings import sampling_settings

    sampling = sampling_settings(checkpoint)
    most = sampling.max_sequence_length
    settings = EncodeSettings(
        sampling.height,
        sampling.width,
        max_sequence_length=most,
        complex_human_instruction=sampling.complex_human_instruction,
    )
    rows: Any = _Rows(images, CaptionChoice(("text",), (1.0,)))
    plan = plan_encoding(checkpoint, rows, settings)
    generator = torch.Generator().manual_seed(seed)
    channels, width, factor = (plan.about[key] for key in ("channels", "text_width", "factor"))
    side = (sampling.height // factor, sampling.width // factor)
    folder = ShardFolder(path, plan)
    folder.begin(force=False)
    folder.write_empty(torch.randn(min(_EMPTY_TOKENS, most), width, generator=generator))
    number = 0
    while (part := plan.shard(number)) is not None:
        few, many = (min(n, most) for n in tokens)
        lengths = torch.randint(few, many + 1, (len(part), 1), generator=generator, dtype=torch.int32)
        shapes = torch.cat([torch.tensor([side] * len(part), dtype=torch.int32), lengths], dim=1)
        tensors = {
            "latents": torch.randn(len(part) * channels * side[0] * side[1], generator=generator),
            "text": torch.randn(int(lengths.sum()), width, generator=generator),
            "shapes": shapes,
        }
        folder.write(number, tensors, rows=len(part), skipped=[], last=False)
        number += 1
    folder.complete(path.name, max_bad=0)
    return EncodedData(path, seed)
