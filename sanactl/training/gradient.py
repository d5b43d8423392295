"""The gradient of a step's batch: what is random in a step, the parts that go through the model, and their sum."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from sanactl.model.flow import sample_sigmas, velocity_loss
from sanactl.training.health import first_bad_layer
from sanactl.training.parts import add_gradients, at_once, share_gradients

if TYPE_CHECKING:
    from accelerate import Accelerator

    from sanactl.model.cpu import Workers
    from sanactl.training.conditions import Conditions
    from sanactl.training.settings import FinetuneSettings
    from sanactl.training.teacher import Errors, Teacher
    from sanactl.training.trainable import Trainable

__all__ = ["BatchGradient"]

# Latents, noise, sigma, text and its mask, as `velocity_loss` takes them.
Inputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


class _Drawn(NamedTuple):
    """A step's batch: positions in the data, noise [B, C, h, w], noise levels [B], and whose caption is dropped [B].

    And `parts`: the places in it that are this process's, in the parts that go through the model together.
    """

    positions: list[int]
    noise: Tensor
    sigma: Tensor
    dropped: Tensor
    parts: list[list[int]]


class BatchGradient:
    """Computes gradients of whole batches, each process its share.

    Args:
        accelerator: the processes, and the precision.
        trained: what the gradients are of.
        conditions: the examples. With its `workers` the parts of a batch are computed side by side, without them one
            after the other, on all threads.
        settings: of the run.
        teacher: to learn from as well.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        trained: Trainable,
        conditions: Conditions,
        settings: FinetuneSettings,
        teacher: Teacher | None = None,
    ) -> None:
        self.accelerator, self.trained, self.conditions = accelerator, trained, conditions
        self.settings, self.teacher, self.workers = settings, teacher, conditions.workers
        # DDP's wrapper does not allow parts of a batch side by side; `share_gradients` is in its place.
        self.wrapped = trained.model if self.workers else accelerator.prepare_model(trained.model)

    def leave(self, step: int, total: Tensor) -> None:
        """Leaves the gradient of the batch's mean loss, over all processes, in the parameters.

        Args:
            step: whose batch.
            total: this process's share of the mean losses is added to its first three numbers: the loss of the data,
                and with a teacher those of its velocity and of the features.
        """
        drawn = self._draw(step)
        if self.workers is None:
            self._one_by_one(drawn, total)
        else:
            self._side_by_side(self.workers, drawn, total)

    def first_bad_layer(self, step: int) -> str | None:
        """The first layer that is not finite for this process's share of a step's batch."""
        drawn, model = self._draw(step), self.trained.model
        for part in drawn.parts:
            inputs = self._read(drawn, part)()
            found = first_bad_layer(model, partial(self._errors, inputs, model))
            if found:
                return found
        return None

    def _draw(self, step: int) -> _Drawn:
        """What is random in a step, for the whole batch on every process: the same steps for any number of processes."""
        settings, count = self.settings, self.settings.batch_size
        generator = torch.Generator().manual_seed((settings.seed * 1_000_003 + step) % 2**63)
        sigma = sample_sigmas(count, settings.flow_shift, generator)
        dropped = torch.rand(count, generator=generator) < settings.text_dropout
        positions, shape = self.conditions.step(step)
        noise = torch.randn((count, *shape), generator=generator)
        parts = self.conditions.parts(positions, shape, self.accelerator)
        return _Drawn(positions, noise, sigma, dropped, parts)

    def _read(self, drawn: _Drawn, part: list[int]) -> Callable[[], Inputs]:
        """Reads a part's examples; what is returned computes the model's inputs, in any thread."""
        compute = self.conditions.read([drawn.positions[i] for i in part], drawn.dropped[part].tolist())

        def inputs() -> Inputs:
            latents, text, mask = compute()
            device = latents.device
            return latents, drawn.noise[part].to(device), drawn.sigma[part].to(device), text, mask

        return inputs

    def _errors(self, inputs: Inputs, model: torch.nn.Module) -> tuple[Tensor, Errors | None]:
        """Of each example [B]: the loss to descend, and what it is made of where there is a teacher."""
        from accelerate.utils import AutocastKwargs

        # torch keeps cast weights for all threads together, and drops them when one thread is done.
        with self.accelerator.autocast(AutocastKwargs(cache_enabled=self.workers is None)):
            if self.teacher is None:
                return velocity_loss(model, *inputs), None
            errors = self.teacher.errors(model, *inputs)
        share = self.settings.teacher_weight
        objective = (1 - share) * errors.data + share * errors.velocity
        return objective + self.settings.feature_weight * errors.features, errors

    def _one_by_one(self, drawn: _Drawn, total: Tensor) -> None:
        accelerator, count = self.accelerator, len(drawn.positions)
        parts = drawn.parts
        for part in parts:
            inputs = self._read(drawn, part)()
            with contextlib.nullcontext() if part is parts[-1] else accelerator.no_sync(self.wrapped):
                objective, errors = self._errors(inputs, self.wrapped)
                # Gradients are averaged over processes; what is wanted is the sum of their shares of the mean.
                accelerator.backward(objective.sum() / count * accelerator.num_processes)
            _add_losses(total, objective, errors, count)

    def _side_by_side(self, workers: Workers, drawn: _Drawn, total: Tensor) -> None:
        parameters, count = list(self.trained.parameters()), len(drawn.positions)
        parts = drawn.parts

        def descend(inputs: Callable[[], Inputs]) -> tuple[Sequence[Tensor | None], Tensor]:
            objective, errors = self._errors(inputs(), self.wrapped)
            losses = torch.zeros_like(total)
            _add_losses(losses, objective, errors, count)
            # Not backward(), which would add to what other threads add to.
            return torch.autograd.grad(objective.sum() / count, parameters, allow_unused=True), losses

        read = (self._read(drawn, part) for part in parts)
        together = at_once(len(parts), self.settings.accumulate)
        for gradients, losses in workers.map(descend, read, at_once=together):
            add_gradients(parameters, gradients)
            total += losses
        if self.accelerator.num_processes > 1:
            share_gradients(parameters)


def _add_losses(total: Tensor, objective: Tensor, errors: Errors | None, count: int) -> None:
    """Adds a part's share of the batch's mean losses."""
    sums = [objective] if errors is None else [errors.data, errors.velocity, errors.features]
    for place, values in enumerate(sums):
        total[place] += values.detach().sum() / count
