"""Floating-point operations (FLOPs) of drawing one image, and of judging one.

torch counts them (`FlopCounterMode`) while the models run on the meta device: shapes alone, no weights and no arithmetic.
So the numbers are the same for any dtype and device. A multiply-add counts as two. Matrix products, convolutions and
attention are counted; normalisations, activations and sums are not (below 1 %).

What is counted is what `sample` computes for an image: the text has the length that its prompt is padded to
(`sanactl.model.conditions.TextConditions.text_length`), and the transformer's keys and values of the text are computed in
the first step alone. So an image of a longer prompt may cost more. Copies that fill a fixed batch are not counted.

The paper says 49,140 GFLOPs an image for its 4.8B with 20 steps. This is 20 forward passes at 512 pixels (256 latent
tokens) without guidance (49,950 with 300 text tokens, of diffusers' own forward pass), or with guidance if a multiply-add
counts as one. An image of 1024 pixels with guidance takes 355,500 GFLOPs in 40 such passes. As `sample` computes it, it takes
341,500, and 334,900 with 32 text tokens.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from sanactl.model.conditions import TextConditions
from sanactl.model.sampling_settings import SamplingSettings, is_sprint, pixels_per_latent

if TYPE_CHECKING:
    from sanactl.checkpoint.open import Checkpoint

__all__ = ["ImageCosts", "ImageFlops", "count_flops", "sampling_flops"]


@dataclass(frozen=True)
class ImageFlops:
    """FLOPs of one image.

    Attributes:
        text: the text encoder's, for one prompt. Images of a prompt share it. The encoding of the negative prompt is left
            out: all images of a run share it.
        sampling: the transformer's, in all steps, with both halves of guidance.
        decoding: the autoencoder's.
    """

    text: int
    sampling: int
    decoding: int

    @property
    def total(self) -> int:
        """The sum: of an image that is the only one of its prompt."""
        return self.text + self.sampling + self.decoding


class ImageCosts:
    """FLOPs of the images of a checkpoint, by prompt.

    Args:
        checkpoint: with its components. Their configs and the tokenizer are read, no weights.
        settings: of sampling.

    Raises:
        InputError: a component cannot be found, or its config cannot be used.
    """

    def __init__(self, checkpoint: Checkpoint, settings: SamplingSettings) -> None:
        factor = pixels_per_latent(checkpoint)
        self._config, self._settings = dict(checkpoint.config), settings
        self._height, self._width = settings.height // factor, settings.width // factor
        sprint = is_sprint(checkpoint)
        self._guided = settings.guidance_scale > 1 and not sprint
        self._encoder = _place(checkpoint, "text_encoder")
        self._texts = TextConditions(
            str(checkpoint.path),
            _tokenizer(*_place(checkpoint, "tokenizer")),
            lambda: None,  # no text is encoded
            settings,
            width=int(checkpoint.config.caption_channels),
            sprint=sprint,
        )
        self._decoding = _decoding_flops(
            *_place(checkpoint, "vae"), checkpoint.config.in_channels, self._height, self._width
        )
        self._known: dict[int, ImageFlops] = {}  # by the length of the text

    def of(self, prompt: str) -> ImageFlops:
        """Of an image of this prompt."""
        length = self._texts.text_length(prompt)
        if length not in self._known:
            sampling = sampling_flops(
                self._config,
                height=self._height,
                width=self._width,
                text_tokens=length,
                steps=self._settings.steps,
                guided=self._guided,
            )
            text = _text_flops(*self._encoder, self._texts.encoder_tokens(prompt))
            self._known[length] = ImageFlops(text, sampling, self._decoding)
        return self._known[length]


def count_flops(function: Callable[[], Any]) -> int:
    """FLOPs of the torch operations of a call, in this thread.

    Attention is computed by its formula and not by a fused kernel, because torch counts the kernels of some devices only.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        function()
    return int(counter.get_total_flops())


def sampling_flops(
    config: dict[str, Any], *, height: int, width: int, text_tokens: int, steps: int, guided: bool
) -> int:
    """FLOPs of the transformer in all steps of one image, as `sanactl.model.sampling_transformer` computes it.

    Args:
        config: of a `SanaTransformer2DModel`.
        height, width: of the latent.
        text_tokens: that the prompt is padded to.
        guided: whether each step also computes the image without the prompt.
    """
    from sanactl.checkpoint.config import CONFIG_DEFAULTS

    known = json.dumps({key: config[key] for key in CONFIG_DEFAULTS}, sort_keys=True)
    first, later = _step_flops(known, height, width, text_tokens, guided)
    return first + (steps - 1) * later


@lru_cache(maxsize=64)
def _step_flops(config: str, height: int, width: int, text_tokens: int, guided: bool) -> tuple[int, int]:
    """FLOPs of the first step of one image, and of each later one."""
    settings = json.loads(config)
    # All blocks are alike, so one and two are enough to know any number of them. (Without a block, no text is kept.)
    one, two = (
        _two_steps({**settings, "num_layers": blocks}, height, width, text_tokens, guided)
        for blocks in (1, 2)
    )
    more = int(settings["num_layers"]) - 1
    first, later = (a + more * (b - a) for a, b in zip(one, two, strict=True))
    return first, later


def _two_steps(
    config: dict[str, Any], height: int, width: int, text_tokens: int, guided: bool
) -> tuple[int, int]:
    import torch
    from diffusers import SanaTransformer2DModel

    from sanactl.model.sampling_transformer import SamplingTransformer, Text

    with torch.device("meta"):
        model = SamplingTransformer(SanaTransformer2DModel(**config))
        halves = 2 if guided else 1
        text = Text(
            torch.zeros(halves, text_tokens, config["caption_channels"]),
            torch.ones(halves, text_tokens, dtype=torch.int64),
        )
        given = {"guidance": torch.zeros(1)} if config["guidance_embeds"] else {}
        latents = torch.zeros(halves, config["in_channels"], height, width)
        first, later = (count_flops(lambda: model(latents, text, torch.zeros(1), **given)) for _ in range(2))
    return first, later


def _place(checkpoint: Checkpoint, part: str) -> tuple[str, str]:
    """The folder or Hub id of a component, and its options as JSON."""
    from sanactl.checkpoint.components import component_source
    from sanactl.errors import InputError
    from sanactl.model.loading import components_hint

    entry = checkpoint.components.get(part)
    if entry is None:
        raise InputError(f"{checkpoint.path}: names no {part}", hint=components_hint(checkpoint))
    source, options = component_source(checkpoint, entry)
    return source, json.dumps(options)


@lru_cache(maxsize=4)
def _tokenizer(source: str, options: str) -> Any:
    from sanactl.files.paths import utf8_name
    from sanactl.model.components import load_tokenizer

    with utf8_name(source) as place:
        return load_tokenizer(place, json.loads(options))


@lru_cache(maxsize=64)
def _text_flops(source: str, options: str, tokens: int) -> int:
    """FLOPs of encoding one prompt of so many tokens."""
    import torch

    model = _text_model(source, options)
    with torch.device("meta"):
        return count_flops(lambda: model(torch.zeros(1, tokens, dtype=torch.int64)))


@lru_cache(maxsize=2)
def _text_model(source: str, options: str) -> Any:
    """The text encoder on the meta device: shapes alone."""
    import torch
    from transformers import AutoConfig, AutoModel

    from sanactl.files.paths import utf8_name
    from sanactl.model.guard import local_folder, offline, pin_attention, read_config, reading

    with utf8_name(source) as place:
        folder = local_folder(place)
        if folder is not None:
            read_config(folder)
        with offline(folder), reading(source), torch.device("meta"):
            config = AutoConfig.from_pretrained(place, trust_remote_code=False, **json.loads(options))
            pin_attention(config)
            model = AutoModel.from_config(config, trust_remote_code=False)
            # The same part of the model that `sanactl.model.components.load_text_encoder` takes.
            return getattr(model, "get_decoder", lambda: model)() if hasattr(model, "lm_head") else model


@lru_cache(maxsize=64)
def _decoding_flops(source: str, options: str, channels: int, height: int, width: int) -> int:
    """FLOPs of decoding one latent [channels, height, width]."""
    import torch
    from diffusers import AutoencoderDC

    from sanactl.files.paths import utf8_name
    from sanactl.model.guard import local_folder, offline, read_config, reading

    with utf8_name(source) as place:
        folder = local_folder(place)
        with offline(folder), reading(source), torch.device("meta"):
            given = json.loads(options)
            config = AutoencoderDC.load_config(place, **given) if folder is None else read_config(folder)
            vae = AutoencoderDC.from_config(config)
            return count_flops(lambda: vae.decode(torch.zeros(1, channels, height, width), return_dict=False))
