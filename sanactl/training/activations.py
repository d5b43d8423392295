"""Counting the bytes that autograd keeps of a forward pass, with the real diffusers class on the meta device."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from sanactl.checkpoint.config import CONFIG_DEFAULTS

__all__ = ["activation_bytes", "saved_for_backward"]

_FP32 = 4


def activation_bytes(
    config: Mapping[str, Any],
    shape: tuple[int, int, int],
    tokens: int,
    images: int,
    *,
    blocks: int,
    bf16: bool = False,
    checkpointing: bool = False,
) -> int:
    """What autograd keeps for the backward pass of one forward pass; with gradient checkpointing, at its worst.

    Args:
        config: of the `SanaTransformer2DModel`.
        shape: latents of an image, [C, h, w].
        tokens: text tokens of an image.
        images: that go through at once.
        blocks: through which gradients flow.
        bf16: under autocast; then the weights' bf16 copies count, which are kept from the forward to the backward pass.
    """
    counted = {
        (depth, batch): saved_for_backward(_frozen(config), depth, batch, shape, tokens, bf16)
        for depth in (1, 2)
        for batch in (2, 3)
    }
    a, b, c, d = counted[1, 2], counted[1, 3], counted[2, 2], counted[2, 3]
    block_image = (d - c) - (b - a)  # of one block and one image
    image = (b - a) - block_image  # of one image outside the blocks
    block = (c - a) - 2 * block_image  # of one block, whatever the images
    rest = a - block - 2 * image - 2 * block_image
    if not checkpointing:
        return rest + blocks * block + images * (image + blocks * block_image)
    patch = int(config.get("patch_size") or 1)
    width = int(config["num_attention_heads"]) * int(config["attention_head_dim"])
    border = (
        shape[1] // patch * (shape[2] // patch) * width * _FP32
    )  # a block's input, which is all that stays of it
    return rest + blocks * block + images * (image + block_image + blocks * border)


@lru_cache(maxsize=64)
def saved_for_backward(
    config: tuple[tuple[str, Any], ...],
    blocks: int,
    images: int,
    shape: tuple[int, int, int],
    tokens: int,
    bf16: bool,
    fake: bool = True,
) -> int:
    """Bytes of all tensors that autograd saves in one forward pass, parameters not counted.

    Args:
        fake: run it without memory and arithmetic; False is for tests.
    """
    import torch
    from diffusers import SanaTransformer2DModel
    from torch._subclasses.fake_tensor import FakeTensorMode

    from sanactl.training.precision import keep_attention_fp32

    saved: list[torch.Tensor] = []  # kept alive, or a later storage may be taken for one of these

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        saved.append(tensor)
        return tensor

    options: dict[str, Any] = {**dict(config), "num_layers": blocks}
    with FakeTensorMode() if fake else contextlib.nullcontext():
        model = SanaTransformer2DModel(**options).train()
        keep_attention_fp32(model)
        inputs: dict[str, Any] = {
            "hidden_states": torch.zeros(images, *shape),
            "encoder_hidden_states": torch.zeros(images, tokens, options["caption_channels"]),
            "encoder_attention_mask": torch.ones(images, tokens),
            "timestep": torch.zeros(images),
        }
        with (
            torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
            torch.autocast("cpu", torch.bfloat16, enabled=bf16),
        ):
            model(**inputs)
        own = {p.untyped_storage()._cdata for p in model.parameters()}
        sizes = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in saved}
    return sum(size for key, size in sizes.items() if key not in own)


def _frozen(config: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """A config as a key of a cache: what the class knows. Settings of a later diffusers are left out."""
    return tuple((key, config[key]) for key in CONFIG_DEFAULTS if key in config and key != "num_layers")
