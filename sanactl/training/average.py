"""The average of a run's weights: diffusers' `EMAModel` in one operation over all parameters."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from diffusers.training_utils import EMAModel

__all__ = ["Average"]


class Average(EMAModel):
    """An `EMAModel` whose step is a few launches on a GPU, where the class has three for each parameter.

    The class's own `foreach` makes a copy of all parameters at every step. This one needs no memory. It rounds otherwise:
    a + (1 - d) (w - a), in one pass, where the class has a - (1 - d) (a - w). With a decay of 0, as in the first step, it
    is w exactly.
    """

    @torch.no_grad()
    def step(self, parameters: Iterable[torch.Tensor]) -> None:
        """Moves the average towards the parameters, in the order that it was made with."""
        self.optimization_step += 1
        self.cur_decay_value = self.get_decay(self.optimization_step)
        torch._foreach_lerp_(self.shadow_params, list(parameters), 1 - self.cur_decay_value)
