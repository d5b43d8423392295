"""The steps of a training: gradients from the whole batch, shared by all processes; updates that are whole or none."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sanactl.errors import TrainingError
from sanactl.files.progress import Progress
from sanactl.training.health import Divergence, bad_gradient, bad_weight
from sanactl.training.settings import learning_rate_factor
from sanactl.training.sharding import clip_gradients, local_parameters
from sanactl.training.stopping import StopRequest

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator

    from sanactl.training.settings import LoopSettings
    from sanactl.training.state import TrainingState
    from sanactl.training.stored import Trained
    from sanactl.training.summed import SummedGradient

__all__ = ["TrainingLoop"]

# Seconds between saved states where no number of steps is given: what a killed process loses at most.
SAVE_AFTER = 600.0


class TrainingLoop:
    """One run of training, as far as it got.

    Attributes:
        done: steps whose update is complete.
        whole: whether the weights are those after `done` steps, and not in the middle of an update.
        sound: whether they may be saved: finite, and of a run that has not diverged.
        speed: images a second since it began.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        trained: Trained,
        optimizer: torch.optim.Optimizer,
        average: Any,
        gradient: SummedGradient[Any, Any],
        settings: LoopSettings,
        state: TrainingState,
    ) -> None:
        self.accelerator, self.trained, self.optimizer, self.average = (
            accelerator,
            trained,
            optimizer,
            average,
        )
        self.gradient, self.settings, self.state = gradient, settings, state
        self.divergence = Divergence((point["loss"] for point in state.history), settings.harmless_loss)
        self.done, self.whole, self.sound, self.speed = 0, True, True, 0.0

    def run(
        self,
        first: int,
        stop: StopRequest,
        progress: Progress,
        on_step: Callable[[dict[str, Any]], None] | None,
    ) -> bool:
        """Takes the steps from `first` on.

        Returns:
            whether all are done; False after a SIGTERM to any process, once the step under way is done.

        Raises:
            TrainingError: the loss or the gradient is not finite, and the update is not made; or the loss diverged.
            KeyboardInterrupt: somebody pressed Ctrl-C, and the step under way is done.
        """
        settings = self.settings
        if on_step is not None:
            for earlier in self.state.history:
                on_step(earlier)
        self.done = first
        started = saved = time.monotonic()
        progress.start(settings.steps, "training", done=first)
        try:
            self.gradient.begin(first)
            while self.done < settings.steps:
                rate = settings.effective_learning_rate * learning_rate_factor(settings, self.done)
                found, norm, asked = self._gradient(self.done, stop, saved)
                self._check_finite(found["loss"], norm)
                self._check_course(found["loss"])
                self._update(rate)
                self.speed = (self.done - first) * settings.batch_size / (time.monotonic() - started)
                point = {"step": self.done, **found, "lr": rate, "grad_norm": norm}
                self.state.history.append({**point, "images_per_second": self.speed})
                progress.advance(
                    1, loss=f"{found['loss']:.4f}", lr=f"{rate:.1e}", speed=f"{self.speed:.1f} images/s"
                )
                if on_step is not None:
                    on_step(self.state.history[-1])
                if self.done == settings.steps:
                    break
                # A single process need not wait for the others' answer, which comes with the next step.
                alone = self.accelerator.num_processes == 1
                if "interrupted" in asked or (alone and stop.interrupted):
                    raise KeyboardInterrupt
                if "terminated" in asked or (alone and stop.terminated):
                    return False
                if self._is_time_to_save("save" in asked):
                    self.save()
                    progress.keeps(f"the state after step {self.done} is saved")
                    saved = time.monotonic()
        finally:
            self.gradient.end()
            progress.close()
        return True

    def save(self) -> None:
        """Saves the state after `done` steps. Every process calls this if the model is sharded, else the first."""
        self.state.save(self.done, self.trained, self.optimizer, self.average)

    @property
    def saves(self) -> bool:
        """Whether this process takes part in saving."""
        return self.accelerator.is_main_process or self.gradient.sharded

    def can_save_after(self, error: BaseException) -> bool:
        """Whether there are weights to save, and this process takes part.

        With a sharded model all processes have to, so they save only after errors that all of them have.
        """
        common = not self.gradient.sharded or isinstance(error, (TrainingError, KeyboardInterrupt))
        return bool(self.saves and common and self.done and self.whole and self.sound)

    def _is_time_to_save(self, asked: bool) -> bool:
        if not self.saves or self.divergence.suspicious:
            return False
        every = self.settings.save_every
        return self.done % every == 0 if every else asked

    def _gradient(
        self, step: int, stop: StopRequest, saved: float
    ) -> tuple[dict[str, float], float, set[str]]:
        """Leaves the gradient of the batch's mean loss in the parameters, clipped.

        Args:
            saved: when the last state was saved.

        Returns:
            the gradient's mean losses by name, its norm before clipping, and what any process was asked to do; the same
            on all.
        """
        import torch

        count = len(self.gradient.losses)
        total = torch.zeros(count + 3, device=self.accelerator.device)
        self.gradient.leave(step, total)
        if step + 1 < self.settings.steps:
            self.gradient.prepare(step + 1)
        wanted = {
            "interrupted": stop.interrupted,
            "terminated": stop.terminated,
            "save": self.accelerator.is_main_process and time.monotonic() - saved > SAVE_AFTER,
        }
        for place, asked_here in enumerate(wanted.values(), count):
            if asked_here:
                total[place].fill_(1.0)
        # Asked of all at once, so that all stop, and save, after the same step.
        sums = self.accelerator.reduce(total, "sum")
        parameters = [p for p in self.trained.parameters() if p.grad is not None]
        norm = clip_gradients(parameters, self.settings.clip or math.inf)
        # The one place of a step where the host waits for the device.
        *values, size = torch.cat([sums, norm.reshape(1)]).tolist()
        found = dict(zip(self.gradient.losses, values[:count], strict=True))
        asked = {name for name, n in zip(wanted, values[count:], strict=True) if n > 0}
        return found, size, asked

    def _check_finite(self, loss: float, norm: float) -> None:
        if math.isfinite(loss) and math.isfinite(norm):
            return
        weight = self._first(bad_weight(self.trained.model))
        self.sound = weight is None
        fault = f"the weights of {weight}" if weight else self._fault()
        raise TrainingError(
            f"training stopped at step {self.done + 1}: the loss is {loss:g}, the gradient's norm {norm:g}"
            + (f"; first not finite: {fault}" if fault else ""),
            hint="lower the learning rate"
            + self._kept(self.state.weights(self.done) if self.sound else None),
        )

    def _fault(self) -> str | None:
        """The first layer that was not finite, on whichever process it was."""
        from accelerate.utils import gather_object

        every = [f for f in gather_object([self.gradient.first_bad_layer(self.done)]) if f]
        if every:
            return str(every[0])
        gradient = self._first(bad_gradient(self.trained.named))
        return f"the gradient of {gradient}" if gradient else None

    def _first(self, name: str | None) -> str | None:
        """Of what the processes found in their rows, the first; what this one found where parameters are whole."""
        from accelerate.utils import gather_object

        if not self.gradient.sharded:
            return name
        return next((each for each in gather_object([name]) if each), None)

    def _check_course(self, loss: float) -> None:
        if not self.divergence.diverged(loss):
            return
        self.sound = False
        raise TrainingError(
            f"training diverged by step {self.done + 1}: the loss is {loss:.3g}, its median was {self.divergence.median:.3g}",
            hint="lower the learning rate, or lengthen the warm-up" + self._kept(None),
        )

    def _kept(self, weights: Any) -> str:
        """The end of a hint: where the last good weights are; "" where there are none."""
        weights = weights if weights is not None and self.done else self.state.newest()
        return f"; the last good weights are in {weights}" if weights else ""

    def _update(self, rate: float) -> None:
        self.whole = False
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.step(local_parameters(self.trained.parameters()))
        self.done += 1
        self.whole = True
