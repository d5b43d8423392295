"""The trained parts of a run: the model, its optimizer, and the average of its weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import set_seed

from sanactl.model.cpu import keep_freed_memory, one_thread_each, return_freed_memory
from sanactl.model.loading import load_transformer
from sanactl.model.sharded import load_sharded_transformer
from sanactl.optim import build_optimizer
from sanactl.training.precision import keep_attention_fp32
from sanactl.training.sharding import local_parameters
from sanactl.training.trainable import Trainable, choose_trained

if TYPE_CHECKING:
    from sanactl.checkpoint.open import Checkpoint
    from sanactl.training.settings import FinetuneSettings

__all__ = ["open_models"]


def open_models(
    checkpoint: Checkpoint, settings: FinetuneSettings, device: torch.device, blocks: list[int] | None = None
) -> tuple[Trainable, torch.optim.Optimizer, Any]:
    """A checkpoint in fp32, ready to be trained; its optimizer; the `Average` of its weights, or None.

    Args:
        settings: of a run on several processes, where they ask for a sharded model.
        blocks: the only ones that are trained; None for all.
    """
    set_seed(settings.seed % 2**32)  # of new adapters; numpy takes no more bits
    if one_thread_each(device, checkpoint.num_parameters):
        keep_freed_memory()
    elif device.type == "cpu":
        return_freed_memory()

    def choose(model: Any) -> None:
        choose_trained(model, settings, blocks)

    if settings.fsdp:
        model = load_sharded_transformer(checkpoint, device=device, dtype=torch.float32, prepare=choose)
    else:
        model = load_transformer(checkpoint, device=device, dtype=torch.float32)
        choose(model)
    keep_attention_fp32(model.train())
    if settings.gradient_checkpointing:
        model.enable_gradient_checkpointing()
    trained = Trainable(model, bool(settings.lora))
    optimizer: Any = build_optimizer(
        settings.optimizer,
        trained.named,
        lr=settings.effective_learning_rate,
        weight_decay=settings.weight_decay,
        **({"scheme": settings.scheme} if settings.scheme else {}),
    )
    if settings.offload_optimizer and device.type == "cuda":
        from sanactl.optim.offload import OffloadedState

        optimizer = OffloadedState(optimizer)
    if not settings.ema:
        return trained, optimizer, None
    from sanactl.training.average import Average

    return trained, optimizer, Average(local_parameters(trained.parameters()), decay=settings.ema)
