"""Floating-point operations (FLOPs) of drawing one image, and of judging one.

torch counts them (`FlopCounterMode`) while the models run on the meta device: shapes alone, no weights and no arithmetic.
So the numbers are the same for any dtype and device. A multiply-add counts as two. Matrix products, convolutions and
attention are counted; normalisations, activations and sums are not (below 1 %).

The paper says 49,140 GFLOPs an image for its 4.8B with 20 steps. This is 20 forward passes at 512 pixels (256 latent
tokens) without guidance (49,950 here), or with guidance if a multiply-add counts as one. By the count of this module, an
image of 1024 pixels with guidance takes 355,500 GFLOPs in the transformer.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from sanactl.model.sampling_settings import SamplingSettings, is_sprint, pixels_per_latent

if TYPE_CHECKING:
    from sanactl.checkpoint.open import Checkpoint

__all__ = ["ImageFlops", "count_flops", "count_image", "image_flops", "transformer_flops"]


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


def image_flops(checkpoint: Checkpoint, settings: SamplingSettings) -> float:
    """FLOPs of drawing one image, with the encoding of its prompt; see `ImageFlops`.

    Raises:
        InputError: a component cannot be found, or its config cannot be used.
    """
    return float(count_image(checkpoint, settings).total)


def count_image(checkpoint: Checkpoint, settings: SamplingSettings) -> ImageFlops:
    """FLOPs of drawing one image, by part.

    Raises:
        InputError: a component cannot be found, or its config cannot be used.
    """
    factor = pixels_per_latent(checkpoint)
    height, width = settings.height // factor, settings.width // factor
    halves = 2 if settings.guidance_scale > 1 and not is_sprint(checkpoint) else 1
    forward = transformer_flops(
        dict(checkpoint.config), height=height, width=width, text_tokens=settings.max_sequence_length
    )
    text, text_options = _place(checkpoint, "text_encoder")
    vae, vae_options = _place(checkpoint, "vae")
    return ImageFlops(
        text=_text_flops(text, text_options, _text_tokens(checkpoint, settings)),
        sampling=settings.steps * halves * forward,
        decoding=_decoding_flops(vae, vae_options, checkpoint.config.in_channels, height, width),
    )


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


def transformer_flops(config: dict[str, Any], *, height: int, width: int, text_tokens: int) -> int:
    """FLOPs of one forward pass of the transformer for one image.

    Args:
        config: of a `SanaTransformer2DModel`.
        height, width: of the latent.
        text_tokens: of the caption.
    """
    from sanactl.checkpoint.config import CONFIG_DEFAULTS

    known = json.dumps({key: config[key] for key in CONFIG_DEFAULTS}, sort_keys=True)
    return _transformer_flops(known, height, width, text_tokens)


@lru_cache(maxsize=64)
def _transformer_flops(config: str, height: int, width: int, text_tokens: int) -> int:
    settings = json.loads(config)
    # All blocks are alike, so none and one are enough to know any number of them.
    none, one = (
        _forward_flops({**settings, "num_layers": blocks}, height, width, text_tokens) for blocks in (0, 1)
    )
    return none + int(settings["num_layers"]) * (one - none)


def _forward_flops(config: dict[str, Any], height: int, width: int, text_tokens: int) -> int:
    import torch
    from diffusers import SanaTransformer2DModel

    with torch.device("meta"):
        model = SanaTransformer2DModel(**config)
        guided = {"guidance": torch.zeros(1)} if config["guidance_embeds"] else {}
        return count_flops(
            lambda: model(
                torch.zeros(1, config["in_channels"], height, width),
                encoder_hidden_states=torch.zeros(1, text_tokens, config["caption_channels"]),
                encoder_attention_mask=torch.ones(1, text_tokens, dtype=torch.int64),
                timestep=torch.zeros(1),
                return_dict=False,
                **guided,
            )
        )


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


def _text_tokens(checkpoint: Checkpoint, settings: SamplingSettings) -> int:
    """Tokens that the text encoder gets for a prompt; every prompt is padded to this length."""
    if not settings.complex_human_instruction:
        return settings.max_sequence_length
    from sanactl.model.text import human_instruction

    prefix = "\n".join(human_instruction()) if settings.instruction is None else settings.instruction
    source, options = _place(checkpoint, "tokenizer")
    return _prefix_tokens(source, options, prefix) + settings.max_sequence_length - 2


@lru_cache(maxsize=64)
def _prefix_tokens(source: str, options: str, prefix: str) -> int:
    from sanactl.files.paths import utf8_name
    from sanactl.model.components import load_tokenizer

    with utf8_name(source) as place:
        return len(load_tokenizer(place, json.loads(options)).encode(prefix))


@lru_cache(maxsize=64)
def _text_flops(source: str, options: str, tokens: int) -> int:
    """FLOPs of encoding one prompt of so many tokens."""
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
            model = getattr(model, "get_decoder", lambda: model)() if hasattr(model, "lm_head") else model
            return count_flops(lambda: model(torch.zeros(1, tokens, dtype=torch.int64)))


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
