"""The devices that `--device` names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sanactl.errors import UsageError

if TYPE_CHECKING:
    import torch

__all__ = ["open_device"]

_LONGEST = 100  # characters of torch's reason; its longer ones list all devices or operators there are


def open_device(name: str) -> torch.device:
    """The device called `name`, after a first number is stored on it.

    Raises:
        UsageError: this machine has no such device, or it stores no values (torch's `meta`).
    """
    import torch

    there = "there are cpu, cuda, cuda:1 and mps, where the machine has them"
    try:
        device = torch.device(name)
    except (RuntimeError, ValueError):
        raise UsageError(f"--device {name[:60]}: no such device; {there}") from None
    if device.type == "meta":
        raise UsageError("--device meta computes nothing", hint="--device cpu does")
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = next(iter(str(error).splitlines()), "")
        if not 0 < len(reason) <= _LONGEST:
            raise UsageError(f"--device {name}: torch cannot use it here; {there}") from None
        raise UsageError(f"--device {name}: {reason}") from None
    return device
