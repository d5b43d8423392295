"""SANA models with random weights in the published shapes, made directly on the device, without downloads or files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from sanactl.checkpoint.sana import CONFIG_DEFAULTS

__all__ = ["CONFIGS", "Models", "around_of", "make_transformer", "meta_modules"]

_NORMS = {"qk_norm": "rms_norm_across_heads"}
# The published transformers; one of a size that a CPU measures in minutes; `tiny` and `tiny-deep` are for trials.
CONFIGS: Mapping[str, Mapping[str, Any]] = {
    "0.6b": {
        **CONFIG_DEFAULTS, "num_layers": 28, "num_attention_heads": 36, "num_cross_attention_heads": 16,
        "cross_attention_head_dim": 72, "cross_attention_dim": 1152,
    },
    "1.6b": {**CONFIG_DEFAULTS, **_NORMS},
    "4.8b": {**CONFIG_DEFAULTS, **_NORMS, "num_layers": 60},
}  # fmt: skip
_TINY = {
    **CONFIG_DEFAULTS, **_NORMS, "in_channels": 4, "out_channels": 4, "num_attention_heads": 4, "attention_head_dim": 16,
    "num_cross_attention_heads": 4, "cross_attention_head_dim": 16, "cross_attention_dim": 64, "caption_channels": 32,
}  # fmt: skip
_MID = {
    **CONFIG_DEFAULTS, **_NORMS, "num_layers": 8, "num_attention_heads": 16, "num_cross_attention_heads": 8,
    "cross_attention_head_dim": 64, "cross_attention_dim": 512, "caption_channels": 512,
}  # fmt: skip
CONFIGS = {
    **CONFIGS,
    "mid": _MID,
    "tiny": {**_TINY, "num_layers": 2},
    "tiny-deep": {**_TINY, "num_layers": 6},
}

# Of mit-han-lab/dc-ae-f32c32-sana-1.1-diffusers (diffusers' scripts/convert_dcae_to_diffusers.py has the same).
_BLOCKS = ("ResBlock",) * 3 + ("EfficientViTBlock",) * 3
_AUTOENCODER: Mapping[str, Any] = {
    "latent_channels": 32,
    "encoder_block_types": _BLOCKS,
    "decoder_block_types": _BLOCKS,
    "encoder_layers_per_block": (2, 2, 2, 3, 3, 3),
    "decoder_layers_per_block": (3, 3, 3, 3, 3, 3),
    "downsample_block_type": "conv",
    "upsample_block_type": "interpolate",
    "scaling_factor": 0.41407,
}
_TINY_AUTOENCODER: Mapping[str, Any] = {
    **_AUTOENCODER,
    "latent_channels": 4,
    "attention_head_dim": 8,
    "encoder_block_types": "ResBlock",
    "decoder_block_types": "ResBlock",
    "encoder_block_out_channels": (8, 8, 8, 8),
    "decoder_block_out_channels": (8, 8, 8, 8),
    "encoder_layers_per_block": (0, 1, 1, 1),
    "decoder_layers_per_block": (0, 1, 1, 1),
    "encoder_qkv_multiscales": ((),) * 4,
    "decoder_qkv_multiscales": ((),) * 4,
}
# With the scale of its outputs that of the published one; its time is a few percent of drawing an image, as there.
_MID_AUTOENCODER: Mapping[str, Any] = {
    **_AUTOENCODER,
    "encoder_block_types": "ResBlock",
    "decoder_block_types": "ResBlock",
    "encoder_block_out_channels": (8, 16, 32, 64, 64, 64),
    "decoder_block_out_channels": (8, 16, 32, 64, 64, 64),
    "encoder_layers_per_block": (0, 1, 1, 1, 1, 1),
    "decoder_layers_per_block": (0, 1, 1, 1, 1, 1),
    "encoder_qkv_multiscales": ((),) * 6,
    "decoder_qkv_multiscales": ((),) * 6,
}
# Of google/gemma-2-2b.
_TEXT_ENCODER: Mapping[str, Any] = {
    "vocab_size": 256_000, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
    "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "query_pre_attn_scalar": 256,
}  # fmt: skip
_TINY_TEXT_ENCODER: Mapping[str, Any] = {
    "vocab_size": 1000, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16, "query_pre_attn_scalar": 16,
}  # fmt: skip
_MID_TEXT_ENCODER: Mapping[str, Any] = {
    "vocab_size": 1000, "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 128, "query_pre_attn_scalar": 128,
}  # fmt: skip
_AROUND = {
    "published": (_TEXT_ENCODER, _AUTOENCODER),
    "mid": (_MID_TEXT_ENCODER, _MID_AUTOENCODER),
    "tiny": (_TINY_TEXT_ENCODER, _TINY_AUTOENCODER),
}
_SCHEDULER: Mapping[str, Any] = {
    "prediction_type": "flow_prediction",
    "use_flow_sigmas": True,
    "flow_shift": 3.0,
    "algorithm_type": "dpmsolver++",
    "solver_order": 2,
}


def make_transformer(size: str, device: torch.device, dtype: torch.dtype, seed: int = 0) -> Any:
    """A `SanaTransformer2DModel` of `CONFIGS`, with the class's own initial weights."""
    from diffusers import SanaTransformer2DModel

    with _made_there(device, dtype, seed):
        return SanaTransformer2DModel(**CONFIGS[size]).eval()


def meta_modules(size: str) -> tuple[Any, Any, Any]:
    """(transformer, text encoder, autoencoder) on the meta device: shapes without memory, for counts."""
    from diffusers import SanaTransformer2DModel

    around = Models(torch.device("meta"), torch.float32, around=around_of(size))
    with torch.device("meta"):
        return SanaTransformer2DModel(**CONFIGS[size]).eval(), around.text_encoder, around.vae


def around_of(size: str) -> str:
    """Which components belong to a transformer of `CONFIGS`: tiny, mid or published."""
    return "tiny" if size.startswith("tiny") else "mid" if size == "mid" else "published"


class Models:
    """The components of a pipeline other than the transformer, with random weights.

    Args:
        around: see `around_of`.

    Attributes:
        tokenizer: a tokenizer with an invented vocabulary. Prompts are padded to 300 tokens, so it does not affect times.
        text_encoder: a Gemma 2 in the published shape.
        vae: an `AutoencoderDC` in the published shape.
        scheduler: SANA's.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype, *, around: str = "published") -> None:
        from diffusers import AutoencoderDC, DPMSolverMultistepScheduler
        from transformers import Gemma2Config, Gemma2Model

        self.tokenizer = _tokenizer()
        special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
        with _made_there(device, dtype, 1):
            config = Gemma2Config(**_AROUND[around][0], **special)
            self.text_encoder = Gemma2Model(config).eval().requires_grad_(False)
            vae: Any = AutoencoderDC(**_AROUND[around][1])
            self.vae = vae.eval().requires_grad_(False)
        self.scheduler = DPMSolverMultistepScheduler(**_SCHEDULER)
        self.pixels_per_latent = 2 ** (len(self.vae.config.encoder_block_out_channels) - 1)


@contextlib.contextmanager
def _made_there(device: torch.device, dtype: torch.dtype, seed: int) -> Iterator[None]:
    """Build modules in the body directly on the device and in the dtype."""
    torch.manual_seed(seed)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(before)


def _tokenizer() -> Any:
    """A tokenizer that splits at white space and punctuation; all words are unknown, which does not affect times."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = {"<pad>": 0, "<bos>": 1, "<eos>": 2, "<unk>": 3}
    tokenizer = Tokenizer(models.WordLevel(special, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="<unk>"
    )
