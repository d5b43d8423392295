"""The gradient of flow matching: what is random in a step's batch, and the errors of its examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from sanactl.model.flow import sample_sigmas, velocity_loss
from sanactl.training.summed import SummedGradient
from sanactl.training.transfer import sent, to_send

if TYPE_CHECKING:
    from accelerate import Accelerator

    from sanactl.training.conditions import Conditions
    from sanactl.training.settings import FinetuneSettings
    from sanactl.training.teacher import Teacher
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


class _Ahead(NamedTuple):
    """A step that is prepared: its batch, and what makes the inputs of its first part."""

    step: int
    drawn: _Drawn
    inputs: Callable[[], Inputs]


class BatchGradient(SummedGradient[_Drawn, Inputs]):
    """Computes gradients of whole batches, each process its share.

    Args:
        accelerator: the processes, and the precision.
        trained: what the gradients are of.
        conditions: the examples. With its `workers` the parts of a batch are computed side by side, without them one
            after the other, on all threads.
        settings: of the run.
        teacher: to learn from as well.

    Attributes:
        losses: "loss" is always the data's, so that runs with and without a teacher compare; with one also its own.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        trained: Trainable,
        conditions: Conditions,
        settings: FinetuneSettings,
        teacher: Teacher | None = None,
    ) -> None:
        self.conditions, self.settings, self.teacher = conditions, settings, teacher
        if teacher is not None:
            self.losses = ("loss", "teacher_loss", "feature_loss")
        super().__init__(
            accelerator,
            trained,
            count=settings.batch_size,
            accumulate=settings.accumulate,
            workers=conditions.workers,
            wrapped=True,
        )
        self._ahead: _Ahead | None = None

    def begin(self, first: int) -> None:
        self.conditions.read_ahead(first, self.accelerator)

    def end(self) -> None:
        self._ahead = None
        self.conditions.close()

    def prepare(self, step: int) -> None:
        """Draws a step and reads its first part, if that is a copy of encoded data.

        The other parts are read in their turn: while the device computes the part before.
        """
        if self.workers is None and self.conditions.encoders is None:
            drawn = self.draw(step)
            self._ahead = _Ahead(step, drawn, self.read(drawn, drawn.parts[0]))

    def draw(self, step: int) -> _Drawn:
        """What is random in a step, for the whole batch on every process: the same steps for any number of processes."""
        if self._ahead is not None and self._ahead.step == step:
            return self._ahead.drawn
        settings, count = self.settings, self.settings.batch_size
        generator = torch.Generator().manual_seed((settings.seed * 1_000_003 + step) % 2**63)
        sigma = sample_sigmas(count, settings.flow_shift, generator)
        dropped = torch.rand(count, generator=generator) < settings.text_dropout
        positions, shape = self.conditions.step(step)
        noise = torch.randn((count, *shape), generator=generator)
        parts = self.conditions.parts(positions, shape, self.accelerator)
        return _Drawn(positions, noise, sigma, dropped, parts)

    def read(self, drawn: _Drawn, part: list[int]) -> Callable[[], Inputs]:
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead.drawn is drawn and drawn.parts[0] is part:
            return ahead.inputs
        compute = self.conditions.read([drawn.positions[i] for i in part], drawn.dropped[part].tolist())
        device = self.accelerator.device
        noise, sigma = (to_send(each[part], device) for each in (drawn.noise, drawn.sigma))

        def inputs() -> Inputs:
            latents, text, mask = compute()
            return latents, sent(noise, device), sent(sigma, device), text, mask

        return inputs

    def errors(self, inputs: Inputs, model: Any) -> tuple[Tensor, Sequence[Tensor]]:
        with self.autocast():
            if self.teacher is None:
                loss = velocity_loss(model, *inputs)
                return loss, [loss]
            errors = self.teacher.errors(model, *inputs)
        share = self.settings.teacher_weight
        objective = (1 - share) * errors.data + share * errors.velocity
        values = [errors.data, errors.velocity, errors.features]
        return objective + self.settings.feature_weight * errors.features, values
