"""The steps of `finetune`: gradients from the whole batch, shared by all processes; updates that are whole or none."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sanactl.errors import TrainingError
from sanactl.io.progress import Progress
from sanactl.stages.training.stopping import StopRequest

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator

    from sanactl.stages.finetune import FinetuneSettings
    from sanactl.stages.training.conditions import Conditions
    from sanactl.stages.training.state import TrainingState

__all__ = ["TrainingLoop", "learning_rate_factor"]

# Seconds between saved states where no number of steps is given: what a killed process loses at most.
SAVE_AFTER = 600.0


def learning_rate_factor(settings: FinetuneSettings, step: int) -> float:
    """Linear warm-up, then constant, or cosine or linear down to zero at the last step."""
    warm = min(1.0, (step + 1) / max(settings.warmup, 1))
    share = step / max(settings.steps, 1)
    if settings.schedule == "cosine":
        return warm * 0.5 * (1 + math.cos(math.pi * share))
    if settings.schedule == "linear":
        return warm * (1 - share)
    return warm


class TrainingLoop:
    """One run of training, as far as it got.

    Attributes:
        done: steps whose update is complete.
        whole: whether the weights are those after `done` steps, and not in the middle of an update.
        speed: images a second since it began.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        average: Any,
        conditions: Conditions,
        settings: FinetuneSettings,
        state: TrainingState,
    ) -> None:
        self.accelerator, self.model, self.optimizer, self.average = accelerator, model, optimizer, average
        self.conditions, self.settings, self.state = conditions, settings, state
        self.wrapped = accelerator.prepare_model(model)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.done, self.whole, self.speed = 0, True, 0.0

    def run(
        self,
        first: int,
        stop: StopRequest,
        progress: Progress,
        on_step: Callable[[dict[str, Any]], None] | None,
    ) -> None:
        """Takes the steps from `first` on.

        Raises:
            TrainingError: the loss or the gradient is not finite; the update is not made.
            KeyboardInterrupt: a process was asked to stop, and the step under way is done.
        """
        settings = self.settings
        if on_step is not None:
            for earlier in self.state.history:
                on_step(earlier)
        self.done = first
        started = saved = time.monotonic()
        progress.start(settings.steps, "training", done=first)
        try:
            while self.done < settings.steps:
                rate = settings.learning_rate * learning_rate_factor(settings, self.done)
                loss, norm, stopping = self._gradient(self.done, stop)
                self._check(loss, norm)
                self._update(rate)
                self.speed = (self.done - first) * settings.batch_size / (time.monotonic() - started)
                point = {"step": self.done, "loss": loss, "lr": rate, "grad_norm": norm}
                self.state.history.append({**point, "images_per_second": self.speed})
                progress.advance(1, loss=f"{loss:.4f}", lr=f"{rate:.1e}", speed=f"{self.speed:.1f} images/s")
                if on_step is not None:
                    on_step(self.state.history[-1])
                if self.done == settings.steps:
                    return
                # One process need not ask the others, which would take it until the end of the next step.
                if stopping or (stop.asked and self.accelerator.num_processes == 1):
                    raise KeyboardInterrupt
                if self._is_time_to_save(saved):
                    self.save()
                    saved = time.monotonic()
        finally:
            progress.close()

    def save(self) -> None:
        """Saves the state after `done` steps."""
        self.state.save(self.done, self.model, self.optimizer, self.average)

    def _is_time_to_save(self, saved: float) -> bool:
        if not self.accelerator.is_main_process:
            return False
        every = self.settings.save_every
        return self.done % every == 0 if every else time.monotonic() - saved > SAVE_AFTER

    def _gradient(self, step: int, stop: StopRequest) -> tuple[float, float, bool]:
        """Leaves the gradient of the batch's mean loss in the parameters, clipped.

        Returns:
            the loss, the gradient's norm before clipping, and whether any process was asked to stop; the same on all.
        """
        import torch

        from sanactl.diffusion.flow import sample_sigmas, velocity_loss

        settings, accelerator = self.settings, self.accelerator
        count, world = settings.batch_size, accelerator.num_processes
        # Drawn for the whole batch on every process, then divided: the same steps for any number of processes.
        generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
        sigma = sample_sigmas(count, settings.flow_shift, generator)
        dropped = torch.rand(count, generator=generator) < settings.text_dropout
        positions, shape = self.conditions.step(step)
        noise = torch.randn((count, *shape), generator=generator)
        mine = list(range(accelerator.process_index, count, world))
        size = settings.micro_batch or len(mine)
        total = torch.zeros(2, device=accelerator.device)
        for start in range(0, len(mine), size):
            part = mine[start : start + size]
            latents, text, mask = self.conditions.batch([positions[i] for i in part], dropped[part].tolist())
            noise_here, sigma_here = noise[part].to(latents.device), sigma[part].to(latents.device)
            last = start + size >= len(mine)
            with contextlib.nullcontext() if last else accelerator.no_sync(self.wrapped):
                with accelerator.autocast():
                    losses = velocity_loss(self.wrapped, latents, noise_here, sigma_here, text, mask)
                loss = losses.sum() / count
                # Gradients are averaged over processes; what is wanted is the sum of their shares of the mean.
                accelerator.backward(loss * world)
            total[0] += loss.detach()
        total[1] = stop.asked
        # Asked of all at once, so that all stop after the same step.
        loss_sum, asked = accelerator.reduce(total, "sum").tolist()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, settings.clip or math.inf)
        return loss_sum, norm.item(), asked > 0

    def _check(self, loss: float, norm: float) -> None:
        if math.isfinite(loss) and math.isfinite(norm):
            return
        kept = f"the weights before it are kept in {self.state.weights(self.done)}"
        raise TrainingError(
            f"training stopped at step {self.done + 1}: the loss is {loss:g}, the gradient's norm {norm:g}",
            hint="lower the learning rate" + (f"; {kept}" if self.done else ""),
        )

    def _update(self, rate: float) -> None:
        self.whole = False
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.step(self.parameters)
        self.done += 1
        self.whole = True
