"""The memory of autoencoder and text encoder, which a training on images that are not encoded has beside the model.

Weights are counted from the files' headers. Activations are those of one pass of each on fake tensors, as
`sanactl.training.activations` has them of the transformer.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sanactl.errors import InputError

if TYPE_CHECKING:
    from sanactl.checkpoint.open import Checkpoint
    from sanactl.training.settings import FinetuneSettings

__all__ = ["NO_ENCODERS", "EncoderMemory", "encoder_memory"]

_FP32 = 4
_NAMES = {"vae": "the autoencoder", "text_encoder": "the text encoder"}


@dataclass(frozen=True)
class EncoderMemory:
    """What the two encoders take, in fp32.

    Attributes:
        weights: bytes; of the autoencoder its encoder alone.
        vae: its config as JSON; "" where it is not known.
        text: the folder of the text encoder; None where its activations are not counted.
        tokens: that it is given for each caption.
        unknown: what could not be counted.
    """

    weights: int
    vae: str = ""
    text: Path | None = None
    tokens: int = 0
    unknown: tuple[str, ...] = ()

    def activations(self, images: int, height: int, width: int) -> int:
        """The most bytes while images of so many pixels, and as many captions, are encoded: one after the other.

        Raises:
            InputError: a config does not fit its class.
        """
        from sanactl.model.encoders import images_together

        together = min(images, images_together(height, width))
        pixels = _image_bytes(self.vae, together, height, width) if self.vae else 0
        return max(pixels, _text_bytes(self.text, images, self.tokens) if self.text else 0)


NO_ENCODERS = EncoderMemory(0)


def encoder_memory(checkpoint: Checkpoint, settings: FinetuneSettings) -> EncoderMemory:
    """What the encoders of a checkpoint take, as far as they are on this machine."""
    from sanactl.checkpoint.components import cached_component

    folders: dict[str, Path | None] = dict.fromkeys((*_NAMES, "tokenizer"))
    for part in folders:
        entry = checkpoint.components.get(part)
        try:
            folders[part] = cached_component(checkpoint, entry) if entry else None
        except InputError:
            continue
    weights = {part: _weights(folders[part], part) for part in _NAMES}
    unknown = tuple(name for part, name in _NAMES.items() if not weights[part])
    vae, text = (folders[part] if weights[part] else None for part in _NAMES)
    found = EncoderMemory(sum(weights.values()), unknown=unknown)
    try:
        if vae is not None:
            found = replace(found, vae=_config(vae))
        if text is not None and folders["tokenizer"] is not None:
            found = replace(found, text=text, tokens=_tokens(folders["tokenizer"], settings))
        found.activations(settings.batch_size, settings.height, settings.width)
    except InputError:  # loading them says what is wrong
        return replace(found, vae="", text=None, unknown=(*unknown, "the encoders' activations"))
    return found


def _weights(folder: Path | None, part: str) -> int:
    """Bytes in fp32; 0 where they are not there."""
    from sanactl.model.guard import weight_files

    if folder is None:
        return 0
    try:
        tensors = weight_files(folder, "diffusion_pytorch_model" if part == "vae" else "model").tensors
    except InputError:
        return 0
    return sum(
        math.prod(info.shape) * _FP32
        for name, info in tensors.items()
        if part != "vae" or not name.startswith("decoder.")
    )


def _config(folder: Path) -> str:
    from sanactl.model.guard import read_config

    return json.dumps(read_config(folder))


def _tokens(folder: Path, settings: FinetuneSettings) -> int:
    """Tokens of a caption with the instruction before it, where there is one."""
    from sanactl.model.components import load_tokenizer
    from sanactl.model.text import human_instruction, instruction_tokens

    if not settings.complex_human_instruction:
        return settings.max_sequence_length
    tokenizer = load_tokenizer(str(folder), {})
    return settings.max_sequence_length + instruction_tokens(tokenizer, human_instruction())


@lru_cache(maxsize=16)
def _image_bytes(config: str, images: int, height: int, width: int) -> int:
    """Of the encoder of an `AutoencoderDC`."""
    import torch
    from diffusers import AutoencoderDC
    from torch._subclasses.fake_tensor import FakeTensorMode

    from sanactl.model.encoders import encode_images
    from sanactl.model.guard import reading
    from sanactl.training.live import LiveBytes

    with reading("the autoencoder"), FakeTensorMode():
        vae: Any = AutoencoderDC.from_config(json.loads(config))
        pixels = torch.zeros(images, height, width, 3, dtype=torch.uint8)
        with LiveBytes() as live:
            encode_images(vae.eval(), pixels)
    return live.peak


@lru_cache(maxsize=16)
def _text_bytes(folder: Path, captions: int, tokens: int) -> int:
    """Of a text encoder."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from transformers import AutoConfig, AutoModel

    from sanactl.model.guard import offline, pin_attention, reading
    from sanactl.training.live import LiveBytes

    with offline(folder), reading(str(folder)):
        config = AutoConfig.from_pretrained(folder)
        pin_attention(config)
        with FakeTensorMode():
            model: Any = AutoModel.from_config(config)
            mask = torch.ones(captions, tokens, dtype=torch.int64)
            with torch.no_grad(), LiveBytes() as live:
                model.eval()(torch.zeros_like(mask), attention_mask=mask)
    return live.peak
