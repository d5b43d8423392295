"""A training step of a whole model with each optimizer: time, images a second, peak memory (the paper's figure 6)."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Sequence
from typing import Any

import torch

from sanactl.bench.optim_cost import Timer, peak_memory, reset_peak, state_bytes
from sanactl.bench.random_models import CONFIGS, make_transformer
from sanactl.bench.rows import Rows
from sanactl.errors import UsageError
from sanactl.model.flow import sample_sigmas, velocity_loss
from sanactl.optim import build_optimizer
from sanactl.training.precision import keep_attention_fp32

__all__ = ["measure_training"]

OPTIMIZERS = ("came8bit", "adamw-fused", "came", "adamw8bit")
TOKENS = 300


def measure_training(
    rows: Rows,
    device: torch.device,
    size: str,
    *,
    optimizers: Sequence[str] = OPTIMIZERS,
    batch: int = 4,
    pixels: int = 1024,
    steps: int = 3,
    checkpointing: bool = True,
) -> None:
    """Adds a row for each optimizer to the table "a training step".

    The step is that of `finetune`: fp32 weights, gradients and state, bf16 autocast with the self-attention in fp32,
    gradients clipped. Latents and text are random, as if they were encoded. One step goes first and is not timed.

    Args:
        size: of `random_models.CONFIGS`.
        batch: images a step.
        pixels: a side; the latents have a 32nd of it.
        steps: that are timed; the median counts.
        checkpointing: whether activations are computed again in the backward pass.
    """
    model = make_transformer(size, device, torch.float32).train()
    keep_attention_fp32(model)
    if checkpointing:
        model.enable_gradient_checkpointing()
    inputs = _inputs(size, device, batch, pixels // 32)
    for name in optimizers:
        row = {"model": size, "pixels": pixels, "batch": batch, "optimizer": name}
        try:
            rows.add("a training step", **row, **_measure(model, inputs, name, device, steps))
        except (torch.OutOfMemoryError, UsageError) as error:
            rows.add("a training step", **row, fault=str(error).splitlines()[0])
        model.zero_grad(set_to_none=True)
        gc.collect()


def _measure(
    model: Any, inputs: tuple[torch.Tensor, ...], name: str, device: torch.device, steps: int
) -> dict[str, Any]:
    reset_peak(device)
    optimizer = _build(name, model)
    times, parts = [], []
    for _ in range(1 + steps):
        timer = Timer(device)
        with torch.autocast(device.type, torch.bfloat16):
            loss = velocity_loss(model, *inputs).mean()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        until = Timer(device)
        optimizer.step()
        parts.append(until.stop()[0])
        optimizer.zero_grad(set_to_none=True)
        times.append(timer.stop()[0])
    ms, peak = statistics.median(times[1:]), peak_memory(device)
    return {
        "ms": ms,
        "of_it_optimizer_ms": statistics.median(parts[1:]),
        "images_per_second": inputs[0].shape[0] / ms * 1000,
        "peak_GB": None if peak is None else peak / 1e9,
        "state_GB": state_bytes(list(optimizer.state.values())) / 1e9,
        "loss": loss.item(),
        "gradient_norm": norm.item(),
    }


def _build(name: str, model: Any) -> torch.optim.Optimizer:
    if name == "adamw-fused":
        return torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    return build_optimizer(name, list(model.named_parameters()), lr=1e-5)


def _inputs(size: str, device: torch.device, batch: int, side: int) -> tuple[torch.Tensor, ...]:
    """Latents, noise, sigma, text and its mask, as `velocity_loss` takes them."""
    generator = torch.Generator().manual_seed(0)
    config = CONFIGS[size]
    shape = (batch, config["in_channels"], side, side)
    latents, noise = (torch.randn(shape, generator=generator) for _ in range(2))
    text = torch.randn(batch, TOKENS, config["caption_channels"], generator=generator)
    mask = torch.ones(batch, TOKENS, dtype=torch.long)
    sigma = sample_sigmas(batch, 3.0, generator)
    return tuple(t.to(device) for t in (latents, noise, sigma, text, mask))
