"""Helpers, for one process."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

__all__ = ["AutocastKwargs", "broadcast_object_list", "gather_object", "set_seed"]


@dataclass
class AutocastKwargs:
    enabled: bool = True
    cache_enabled: bool | None = None


def set_seed(seed: int, **options: Any) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def gather_object(things: Any) -> Any:
    return things


def broadcast_object_list(things: list[Any], **options: Any) -> list[Any]:
    return things
