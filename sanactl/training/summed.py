"""The gradient of a whole batch as a sum over parts and processes, for any model that is trained."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from sanactl.training.health import first_bad_layer
from sanactl.training.parts import add_gradients, at_once, process_parts, share_gradients
from sanactl.training.sharding import any_sharded

if TYPE_CHECKING:
    from accelerate import Accelerator

    from sanactl.model.cpu import Workers
    from sanactl.training.stored import Trained

__all__ = ["Batch", "SummedGradient"]


class Batch(Protocol):
    """A step's batch, as a process draws it.

    Attributes:
        parts: the places in the batch that are this process's, in the parts that go through the model together.
    """

    @property
    def parts(self) -> list[list[int]]: ...


Drawn = TypeVar("Drawn", bound=Batch)
Inputs = TypeVar("Inputs")


class SummedGradient(ABC, Generic[Drawn, Inputs]):
    """Computes gradients of whole batches, each process its share.

    A subclass draws a step's batch (`draw`), reads a part of it (`read`) and gives the errors of its examples (`errors`).

    Args:
        accelerator: the processes, and the precision.
        trained: what the gradients are of.
        count: examples of a batch, over all processes.
        accumulate: parts in which a process's share goes through the model.
        workers: threads that compute the parts side by side; None: one part after the other, on all threads.
        wrapped: use torch's DDP to share gradients. It does not allow parts side by side, nor parameters without a gradient.

    Sharded parameters (FSDP2) share their gradients themselves. There every process computes as many parts as the others,
    because each part collects every block's parameters from all of them.

    Attributes:
        losses: the names of the mean losses that `leave` adds up; the first is "loss".
    """

    losses: tuple[str, ...] = ("loss",)

    def __init__(
        self,
        accelerator: Accelerator,
        trained: Trained,
        *,
        count: int,
        accumulate: int,
        workers: Workers | None,
        wrapped: bool,
    ) -> None:
        self.accelerator, self.trained, self.workers = accelerator, trained, workers
        self.count, self.accumulate = count, accumulate
        self.sharded = any_sharded(trained.parameters())
        assert workers is None or not self.sharded, "FSDP2 does not allow parts side by side"
        self.is_wrapped = wrapped and workers is None and not self.sharded
        self.model: Any = accelerator.prepare_model(trained.model) if self.is_wrapped else trained.model

    @abstractmethod
    def draw(self, step: int) -> Drawn:
        """A step's batch. What is random in it depends on seed and step alone."""

    @abstractmethod
    def read(self, drawn: Drawn, part: list[int]) -> Callable[[], Inputs]:
        """Reads a part's examples; what is returned computes the model's inputs, in any thread."""

    @abstractmethod
    def errors(self, inputs: Inputs, model: Any) -> tuple[Tensor, Sequence[Tensor]]:
        """Of each example [B]: the loss to descend, and a value for each name of `losses`."""

    def begin(self, first: int) -> None:
        """Called before the first step that is taken, `first`."""

    def prepare(self, step: int) -> None:
        """Called when the step before has been launched: what can be read for `step` while the device computes."""

    def end(self) -> None:
        """Called after the last step, or an error."""

    def leave(self, step: int, total: Tensor) -> None:
        """Leaves the gradient of the batch's mean loss, over all processes, in the parameters.

        Args:
            step: whose batch.
            total: this process's share of the mean of each of `losses` is added to its first numbers.
        """
        drawn = self.draw(step)
        if self.workers is None:
            self._one_by_one(drawn, total)
        else:
            self._side_by_side(self.workers, drawn, total)
        if not self.is_wrapped and not self.sharded and self.accelerator.num_processes > 1:
            share_gradients(list(self.trained.parameters()))

    def first_bad_layer(self, step: int) -> str | None:
        """The first layer that is not finite for this process's share of a step's batch."""
        drawn, model = self.draw(step), self.trained.model
        first = None
        for inputs, _ in self._all_inputs(drawn):
            first = first or first_bad_layer(model, partial(self.errors, inputs, model))
            if first and not self.sharded:
                break
        return first

    def _all_inputs(self, drawn: Drawn) -> Iterator[tuple[Inputs, bool]]:
        """The inputs of this process's parts, and whether they count.

        With sharded parameters, a process with fewer parts than others repeats its last one, which does not count.
        """
        for part in drawn.parts:
            inputs = self.read(drawn, part)()
            yield inputs, True
        if self.sharded:
            processes = self.accelerator.num_processes
            shares = (range(rank, self.count, processes) for rank in (0, processes - 1))
            most = max(len(process_parts(share, self.accumulate, None)) for share in shares)
            for _ in range(most - len(drawn.parts)):
                yield inputs, False

    def autocast(self) -> Any:
        """The precision of the run, for the thread that it is called in."""
        from accelerate.utils import AutocastKwargs

        # torch keeps cast weights for all threads together, and drops them when one thread is done.
        # With FSDP2 a cached copy would outlive the weights that a block collects.
        cached = self.workers is None and not self.sharded
        return self.accelerator.autocast(AutocastKwargs(cache_enabled=cached))

    def _one_by_one(self, drawn: Drawn, total: Tensor) -> None:
        accelerator, parts = self.accelerator, drawn.parts
        # DDP and FSDP2 average over processes; what is wanted is the sum of their shares of the mean.
        shares = accelerator.num_processes if self.is_wrapped or self.sharded else 1
        for number, (inputs, counts) in enumerate(self._all_inputs(drawn), 1):
            # FSDP2 shares after every part: to wait, each process would have to hold whole gradients.
            waits = self.is_wrapped and number < len(parts)
            with accelerator.no_sync(self.model) if waits else contextlib.nullcontext():
                objective, values = self.errors(inputs, self.model)
                accelerator.backward(objective.sum() / self.count * (shares if counts else 0))
            if counts:
                self._add(total, values)

    def _side_by_side(self, workers: Workers, drawn: Drawn, total: Tensor) -> None:
        parameters = list(self.trained.parameters())

        def descend(inputs: Callable[[], Inputs]) -> tuple[Sequence[Tensor | None], Tensor]:
            objective, values = self.errors(inputs(), self.model)
            losses = torch.zeros_like(total)
            self._add(losses, values)
            # Not backward(), which would add to what other threads add to.
            return torch.autograd.grad(objective.sum() / self.count, parameters, allow_unused=True), losses

        read = (self.read(drawn, part) for part in drawn.parts)
        together = at_once(len(drawn.parts), self.accumulate)
        for gradients, losses in workers.map(descend, read, at_once=together):
            add_gradients(parameters, gradients)
            total += losses
            del gradients  # before the next part is waited for, or computed here

    def _add(self, total: Tensor, values: Sequence[Tensor]) -> None:
        """Adds a part's share of the batch's mean losses."""
        for place, value in enumerate(values):
            total[place] += value.detach().sum() / self.count
