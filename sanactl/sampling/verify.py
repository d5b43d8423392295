"""Comparing a grown checkpoint with its parent on the same random input, for `grow --verify`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sanactl.checkpoint.open import Checkpoint
from sanactl.errors import SanactlError

__all__ = ["changes", "largest_difference", "verified_difference"]


def changes(arguments: Mapping[str, Any]) -> list[str]:
    """The reasons why a grown checkpoint computes something else than its parent; [] if it must compute the same.

    Args:
        arguments: of the lineage step that `plan_grow` or `plan_qk_norm` wrote.
    """
    reasons = []
    if dropped := arguments.get("drop_last", 0):
        blocks = "block was" if dropped == 1 else f"{dropped} blocks were"
        reasons.append(f"the last {blocks} left out (--drop-last 0 keeps all)")
    if not arguments.get("zero_init", True):
        reasons.append("the new blocks are not the identity (--zero-init makes them so)")
    if arguments.get("qk_norm"):
        reasons.append("QK norms were inserted")
    return reasons


def verified_difference(
    parent: Checkpoint, child: Checkpoint, arguments: Mapping[str, Any]
) -> tuple[float, list[str]]:
    """The `largest_difference` of a grown checkpoint to its parent, and the reasons for one (`changes`).

    Args:
        arguments: of the lineage step that `plan_grow` or `plan_qk_norm` wrote.

    Raises:
        SanactlError: they differ, and there is no reason for it.
    """
    difference, reasons = largest_difference(parent, child), changes(arguments)
    if difference and not reasons:
        raise SanactlError(
            f"{child.path} differs from {parent.path} by {difference:.3g} on random latents, and should not differ",
            hint="the file is kept for inspection: do not use it, and please report this",
        )
    return difference, reasons


def largest_difference(parent: Checkpoint, child: Checkpoint, *, seed: int = 0, batch: int = 2) -> float:
    """The largest absolute difference of the two predicted velocities on random latents, text and timesteps.

    Both run in fp32 on the CPU. 0.0 means that the outputs are equal bit for bit. They differ if a block was dropped, or
    copied without zero-init.
    """
    import torch

    from sanactl.model.loading import load_transformer

    config = parent.config
    generator = torch.Generator().manual_seed(seed)
    side = int(config["sample_size"])
    latents = torch.randn(batch, int(config["in_channels"]), side, side, generator=generator)
    text = torch.randn(batch, 16, int(config["caption_channels"]), generator=generator)
    timestep = torch.rand(batch, generator=generator) * 1000
    # SANA-Sprint's transformer also takes a guidance scale, and its times are from 0 to 1.
    sprint = {"guidance": torch.full([batch], 0.45)} if config.guidance_embeds else {}
    if sprint:
        timestep = timestep / 1000
    outputs = []
    for checkpoint in (parent, child):
        model = load_transformer(checkpoint)  # also of a native file
        with torch.no_grad():
            outputs.append(
                model(latents, encoder_hidden_states=text, timestep=timestep, return_dict=False, **sprint)[0]
            )
        del model
    return (outputs[0] - outputs[1]).abs().max().item()
