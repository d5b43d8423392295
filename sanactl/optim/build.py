"""Optimizers by name."""

from __future__ import annotations

from typing import Any

from torch.optim import AdamW, Optimizer

from sanactl.errors import UsageError
from sanactl.optim.came import CAME, CAME8bit

__all__ = ["OPTIMIZERS", "build_optimizer"]

OPTIMIZERS = ("came8bit", "came", "adamw", "adamw8bit")


def build_optimizer(name: str, params: Any, lr: float, **options: Any) -> Optimizer:
    """The optimizer called `name`.

    Args:
        name: `came8bit`, `came`, `adamw` (torch) or `adamw8bit` (bitsandbytes, an optional package).
        params: parameters, named parameters or parameter groups.
        lr: learning rate.
        options: passed on; see the optimizer itself.

    Raises:
        UsageError: no such optimizer, an option that it does not have, or a package that is not installed.
    """
    if name not in OPTIMIZERS:
        raise UsageError(f"unknown optimizer {name!r}", hint=f"use one of {', '.join(OPTIMIZERS)}")
    kind: Any
    if name == "adamw8bit":
        try:
            from bitsandbytes.optim import AdamW8bit  # type: ignore[attr-defined, unused-ignore]
        except ImportError as e:
            raise UsageError(
                "the optimizer adamw8bit needs the package bitsandbytes",
                hint="pip install bitsandbytes, or use came8bit, which needs torch alone",
            ) from e
        kind = AdamW8bit
    else:
        kind = {"came8bit": CAME8bit, "came": CAME, "adamw": AdamW}[name]
    try:
        built: Optimizer = kind(params, lr=lr, **options)
    except TypeError as e:
        raise UsageError(f"the optimizer {name} does not take these options: {e}") from e
    return built
