"""Building an optimizer by its name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sanactl.errors import UsageError
from sanactl.optim.table import find_optimizer

if TYPE_CHECKING:
    from torch.optim import Optimizer

__all__ = ["build_optimizer"]


def build_optimizer(name: str, params: Any, lr: float, **options: Any) -> Optimizer:
    """The optimizer called `name`.

    Args:
        name: one of `sanactl.optim.table.OPTIMIZERS`: `came8bit`, `came`, `adamw` (torch) or `adamw8bit` (bitsandbytes,
            an optional package).
        params: parameters, named parameters or parameter groups.
        lr: learning rate.
        options: options of the optimizer; see its class.

    Raises:
        UsageError: the optimizer is unknown, does not have an option, or needs a package that is not installed.
    """
    entry = find_optimizer(name)
    make = entry.load()
    try:
        return make(params, lr=lr, **{**entry.defaults, **options})
    except TypeError as e:
        raise UsageError(f"the optimizer {name} does not take these options: {e}") from e
