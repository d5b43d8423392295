"""`finetune`: flow matching on images with captions, restartable to the same weights bit for bit.

Everything random in a step (which examples, noise, noise levels, dropped captions) is a function of (seed, step),
so a run that was stopped and resumed takes the same steps as one that was not. State lies beside the target until the
run is done: `.NAME.training/step-000100/`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sanactl.errors import TrainingError
from sanactl.io.progress import SILENT, Progress

if TYPE_CHECKING:
    import torch

    from sanactl.io.checkpoint import Checkpoint
    from sanactl.stages.training_data import TrainingData

__all__ = ["FinetuneSettings", "finetune"]


@dataclass(frozen=True)
class FinetuneSettings:
    """How to train. Defaults are the paper's recovery step (section 2.4): the same loss, 100 steps.

    `learning_rate` is taken as given (no scaling by batch size). `clip` bounds the gradient's global norm.
    `ema` 0 keeps no average; otherwise the average is what is written. `cache` examples, if not 0, are encoded to
    latents once before training, which then draws from these alone.
    """

    steps: int = 100
    batch_size: int = 16
    learning_rate: float = 2e-5
    optimizer: str = "came8bit"
    schedule: str = "constant"
    warmup: int = 10
    clip: float = 0.1
    weight_decay: float = 0.0
    text_dropout: float = 0.1
    flow_shift: float = 3.0
    ema: float = 0.0
    seed: int = 0
    height: int = 64
    width: int = 64
    max_sequence_length: int = 300
    complex_human_instruction: bool = True
    precision: str = "no"
    gradient_checkpointing: bool = False
    cache: int = 0
    save_every: int = 0


def learning_rate_factor(settings: FinetuneSettings, step: int) -> float:
    """Linear warm-up, then constant, or cosine or linear down to zero at the last step."""
    warm = min(1.0, (step + 1) / max(settings.warmup, 1))
    share = step / max(settings.steps, 1)
    if settings.schedule == "cosine":
        return warm * 0.5 * (1 + math.cos(math.pi * share))
    if settings.schedule == "linear":
        return warm * (1 - share)
    return warm


class Conditions:
    """Turns positions of the data stream into latents, text embeddings and masks, on the training device."""

    def __init__(
        self, checkpoint: Checkpoint, data: TrainingData, settings: FinetuneSettings, device: Any
    ) -> None:
        from sanactl.diffusion.loading import load_companions

        self.data, self.settings, self.device = data, settings, device
        self.companions = load_companions(
            checkpoint, parts=("tokenizer", "text_encoder", "vae"), device=device
        )
        self.instruction = None
        if settings.complex_human_instruction:
            from sanactl.diffusion.text import human_instruction

            self.instruction = human_instruction()
        self.cached: torch.Tensor | None = None
        self.captions: list[str] = []

    def encode_images(self, images: Any) -> torch.Tensor:
        """uint8 [B, H, W, 3] to scaled latents [B, C, h, w], float32."""
        import torch

        vae = self.companions.vae
        pixels = torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
        with torch.no_grad():
            latents = vae.encode(pixels.to(vae.dtype), return_dict=False)[0].float()
        return latents * vae.config.scaling_factor

    def fill_cache(self, progress: Progress) -> None:
        """Encodes the first `settings.cache` examples."""
        import torch

        count, size = self.settings.cache, 64
        progress.start(count, "encoding images")
        parts = []
        for start in range(0, count, size):
            images, captions = self.data.batch(range(start, min(start + size, count)))
            parts.append(self.encode_images(images).cpu())
            self.captions += captions
            progress.advance(len(captions))
        self.cached = torch.cat(parts)
        progress.close()

    def batch(
        self, positions: list[int], dropped: list[bool]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Latents [B, C, h, w], text [B, T, D] and mask [B, T]; a dropped caption is the empty prompt."""
        from sanactl.diffusion.text import encode_prompts

        if self.cached is not None:
            rows = [p % len(self.captions) for p in positions]
            latents = self.cached[rows].to(self.device)
            captions = [self.captions[r] for r in rows]
        else:
            images, captions = self.data.batch(positions)
            latents = self.encode_images(images)
        captions = ["" if drop else c for c, drop in zip(captions, dropped, strict=True)]
        text, mask = encode_prompts(
            self.companions.tokenizer,
            self.companions.text_encoder,
            captions,
            max_sequence_length=self.settings.max_sequence_length,
            instruction=self.instruction,
        )
        return latents, text.float(), mask


def finetune(
    checkpoint: Checkpoint,
    target: Path,
    settings: FinetuneSettings,
    *,
    data: TrainingData,
    force: bool = False,
    resume: bool = True,
    progress: Progress = SILENT,
    on_step: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Trains a checkpoint and writes the result.

    Args:
        checkpoint: what to start from; it names its text encoder and autoencoder.
        target: the `.st` file to write.
        data: images with captions.
        resume: continue the state that an interrupted run with the same settings left behind.
        on_step: called after each step with {"step", "loss", "lr", "grad_norm", "images_per_second"}.

    Returns:
        {"loss": mean of the last tenth of the steps, "steps", "images_per_second", "optimizer_bytes"}.

    Raises:
        TrainingError: the loss or the gradient is not finite; the state before that step has been saved.
        KeyboardInterrupt: after the state has been saved.
    """
    import torch
    from accelerate import Accelerator
    from accelerate.utils import set_seed

    from sanactl.diffusion.flow import sample_sigmas, velocity_loss
    from sanactl.diffusion.loading import load_transformer
    from sanactl.diffusion.saving import save_transformer
    from sanactl.optim import build_optimizer
    from sanactl.stages.training_state import TrainingState

    accelerator = Accelerator(mixed_precision=settings.precision)
    set_seed(settings.seed)
    device = accelerator.device
    model = load_transformer(checkpoint, device=device, dtype=torch.float32).train()
    if settings.gradient_checkpointing:
        model.enable_gradient_checkpointing()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = build_optimizer(
        settings.optimizer,
        list(model.named_parameters()),
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
    )
    average = None
    if settings.ema:
        from diffusers.training_utils import EMAModel

        average = EMAModel(parameters, decay=settings.ema, use_ema_warmup=True, power=0.75)
    state = TrainingState(target, {**asdict(settings), "checkpoint": checkpoint.digest, "data": data.name})
    first = state.load(model, optimizer, average) if resume else 0
    if not resume:
        state.clear()
    if first:
        progress.note(f"resuming at step {first} of {settings.steps}")
    conditions = Conditions(checkpoint, data, settings, device)
    if settings.cache:
        conditions.fill_cache(progress)
    wrapped = accelerator.prepare_model(model)
    rank, world = accelerator.process_index, accelerator.num_processes

    losses: list[float] = []
    started, step = time.perf_counter(), first
    progress.start(settings.steps, "training", done=first)
    try:
        for step in range(first, settings.steps):
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * learning_rate_factor(settings, step)
            # Drawn for the whole batch on every process, then divided: the same steps for any number of processes.
            generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
            sigma = sample_sigmas(settings.batch_size, settings.flow_shift, generator)
            dropped = torch.rand(settings.batch_size, generator=generator) < settings.text_dropout
            positions = list(range(step * settings.batch_size, (step + 1) * settings.batch_size))
            mine = slice(rank, None, world)
            latents, text, mask = conditions.batch(positions[mine], dropped[mine].tolist())
            noise = torch.randn((settings.batch_size, *latents.shape[1:]), generator=generator)[mine].to(
                device
            )
            with accelerator.autocast():
                loss = velocity_loss(wrapped, latents, noise, sigma[mine].to(device), text, mask).mean()
            accelerator.backward(loss)
            norm = torch.nn.utils.clip_grad_norm_(parameters, settings.clip)
            value = accelerator.reduce(loss.detach(), "mean").item()
            if not (math.isfinite(value) and math.isfinite(norm.item())):
                state.save(step, model, optimizer, average)
                raise TrainingError(
                    f"{target.name}: the loss is {value} and the gradient's norm {norm.item()} at step {step}",
                    hint=f"the weights before it are kept in {state.folder}; lower the learning rate",
                )
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if average is not None:
                average.step(parameters)
            losses.append(value)
            speed = (step + 1 - first) * settings.batch_size / (time.perf_counter() - started)
            rate = optimizer.param_groups[0]["lr"]
            progress.advance(1, loss=f"{value:.4f}", lr=f"{rate:.1e}", speed=f"{speed:.1f} images/s")
            if on_step is not None:
                on_step(
                    {
                        "step": step + 1,
                        "loss": value,
                        "lr": rate,
                        "grad_norm": norm.item(),
                        "images_per_second": speed,
                    }
                )
            if settings.save_every and (step + 1) % settings.save_every == 0 and step + 1 < settings.steps:
                state.save(step + 1, model, optimizer, average)
    except KeyboardInterrupt:
        # `losses` grows only after an update is complete, so it tells which step the weights are at.
        state.save(first + len(losses), model, optimizer, average)
        progress.note(f"stopped after step {first + len(losses)}; the same command continues from there")
        raise
    finally:
        progress.close()
    if average is not None:
        average.copy_to(parameters)
    if accelerator.is_main_process:
        save_transformer(
            model,
            checkpoint,
            target,
            command="finetune",
            arguments=asdict(settings) | {"data": data.name},
            seed=settings.seed,
            force=force,
        )
        state.clear()
    accelerator.wait_for_everyone()
    tail = losses[-max(1, len(losses) // 10) :]
    return {
        "steps": settings.steps,
        "loss": sum(tail) / len(tail) if tail else None,
        "images_per_second": (settings.steps - first) * settings.batch_size / (time.perf_counter() - started),
        "optimizer_bytes": _state_bytes(optimizer),
    }


def _state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of optimizer state, all tensors counted."""
    import torch

    return sum(
        value.numel() * value.element_size()
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor)
    )
