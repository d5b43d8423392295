"""Copies to the device that the host does not wait for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["sent", "to_send"]


def to_send(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor on the CPU in memory that a GPU can copy by itself (pinned); for any other device, the tensor itself."""
    return tensor.pin_memory() if device.type == "cuda" else tensor


def sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The tensor on the device. From pinned memory, the copy has its place among the device's work, and nobody waits."""
    return tensor.to(device, non_blocking=device.type == "cuda")
