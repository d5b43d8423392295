"""Where and in what a model runs, from what a caller of the functions says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sanactl.api.inputs import DeviceLike, DtypeLike, device_name, dtype_name, warn

if TYPE_CHECKING:
    import torch

    from sanactl.checkpoint.open import Checkpoint

__all__ = ["placed"]


def placed(
    checkpoint: Checkpoint, device: DeviceLike | None, dtype: DtypeLike | None
) -> tuple[torch.device, torch.dtype]:
    """The device and the dtype; what is known to go wrong with these weights in this dtype is a warning.

    Raises:
        UsageError: no such device or dtype.
    """
    from sanactl.model.conditioning import pick_device
    from sanactl.model.loading import dtype_warning, resolve_dtype

    where = pick_device(device_name(device))
    kind = resolve_dtype(dtype_name(dtype), where)
    if line := dtype_warning(checkpoint, kind):
        warn(line)
    return where, kind
