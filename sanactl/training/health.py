"""Detecting failed training: the layer that gave a NaN, and a loss that diverges."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from typing import Any

import torch

from sanactl.optim.sharded import local

__all__ = ["Divergence", "bad_gradient", "bad_weight", "first_bad_layer"]


class Divergence:
    """Watches the loss for divergence, which shows long before the weights are NaN.

    A run has diverged when its loss was more than `FACTOR` times its running median for `PATIENCE` steps in a row.
    Single steps reach that now and then, for instance a batch of one or two images with little noise.

    Args:
        earlier: the losses of the steps before.
        harmless: a loss up to which no step counts: one that fell to almost 0 may well rise tenfold.

    Attributes:
        suspicious: steps in a row whose loss was too high. Their weights are not saved.
    """

    FACTOR, PATIENCE, WINDOW, FIRST = 10.0, 5, 50, 20

    def __init__(self, earlier: Iterable[float] = (), harmless: float = 0.0) -> None:
        self._good: list[float] = []
        self._harmless = harmless
        self.suspicious = 0
        for loss in earlier:
            self.diverged(loss)

    def diverged(self, loss: float) -> bool:
        """Adds a step's loss; whether the run has diverged."""
        if len(self._good) >= self.FIRST and loss > max(self.FACTOR * self.median, self._harmless):
            self.suspicious += 1
        else:
            self.suspicious = 0
            self._good = [*self._good[-self.WINDOW + 1 :], loss]
        return self.suspicious >= self.PATIENCE

    @property
    def median(self) -> float:
        """Of the last good losses."""
        return statistics.median(self._good) if self._good else 0.0


def bad_weight(model: torch.nn.Module) -> str | None:
    """The first parameter that holds a NaN or an infinity; of a sharded one, in this process's rows."""
    return next((name for name, p in model.named_parameters() if not _finite(local(p.detach()))), None)


def bad_gradient(parameters: Iterable[tuple[str, torch.nn.Parameter]]) -> str | None:
    """The parameter where the backward pass first met a NaN or an infinity.

    That is the last one in the model's order: the backward pass starts at the end, and spreads the fault to all before.
    """
    bad = [name for name, p in parameters if p.grad is not None and not _finite(local(p.grad))]
    return bad[-1] if bad else None


def first_bad_layer(model: torch.nn.Module, forward: Callable[[], Any]) -> str | None:
    """Runs `forward` once more and names the first layer of `model` whose input or output is not finite."""
    found: list[str] = []

    def watcher(name: str) -> Callable[..., None]:
        def watch(module: torch.nn.Module, inputs: Any, output: Any) -> None:
            if not found and any(not _finite(t) for t in inputs):
                found.append(f"the input of {name}")
            if not found and not _finite(output):
                found.append(f"the output of {name}")

        return watch

    leaves = [(n, m) for n, m in model.named_modules() if n and not list(m.children())]
    hooks = [module.register_forward_hook(watcher(name)) for name, module in leaves]
    try:
        with torch.no_grad():
            forward()
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else None


def _finite(value: Any) -> bool:
    return not (isinstance(value, torch.Tensor) and value.is_floating_point()) or bool(
        torch.isfinite(value.detach()).all()
    )
