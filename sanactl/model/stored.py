"""Weights that stay in their file's dtype: a layer casts its own while it computes.

A cast from bf16 or fp16 to fp32 is exact, so results are bit for bit those of a model in fp32, at half its memory. A forward
pass of SANA 1.6B at 1024 pixels takes 2 % longer.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

__all__ = ["LARGE", "cast_in_use", "kept_dtype"]

LARGE = 100_000_000  # parameters; smaller models are cast once
_NARROW = (torch.bfloat16, torch.float16)
# Nearly all weights are in these layers. Smaller parts (norms, tables) are cast once.
_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)


def kept_dtype(stored: torch.dtype, dtype: torch.dtype) -> torch.dtype:
    """The dtype in which a weight is kept for a model that computes in `dtype`: its own if the cast is exact."""
    return stored if dtype == torch.float32 and stored in _NARROW else dtype


def cast_in_use(model: nn.Module, dtype: torch.dtype) -> None:
    """Make a model on the CPU, whose weights may be of several dtypes, compute in `dtype`.

    The layers must be called as modules, by one thread at a time. The model's own parameters are in `dtype` afterwards.
    """
    for layer in model.modules():
        if isinstance(layer, _LAYERS) and layer.weight.dtype != dtype:
            hooks: Any = _Cast(dtype)
            if layer.bias is not None:
                layer.bias.data = layer.bias.data.to(dtype)
        elif isinstance(layer, nn.Embedding) and layer.weight.dtype != dtype:
            hooks = _CastRows(dtype)
            layer.padding_idx = None  # it is about gradients only, and rows get other numbers
        else:
            for parameter in layer._parameters.values():
                if parameter is not None and parameter.is_floating_point():
                    parameter.data = parameter.data.to(dtype)
            continue
        layer.register_forward_pre_hook(hooks.before)
        layer.register_forward_hook(hooks.after, always_call=True)


class _Cast:
    """Hooks of a layer: its weight is cast before its forward pass, and is as it was after it."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self._kept: torch.Tensor | None = None

    def before(self, layer: Any, inputs: tuple[Any, ...]) -> Any:
        self._kept = layer.weight.data
        layer.weight.data = self._kept.to(self.dtype)
        return None

    def after(self, layer: Any, inputs: Any, output: Any) -> None:
        if self._kept is not None:
            layer.weight.data = self._kept
        self._kept = None


class _CastRows(_Cast):
    """Of an embedding: only the rows that are looked up are cast. Gemma's table is a quarter of the model."""

    def before(self, layer: Any, inputs: tuple[Any, ...]) -> Any:
        self._kept = layer.weight.data
        rows, places = inputs[0].unique(return_inverse=True)
        layer.weight.data = self._kept[rows].to(self.dtype)
        return (places, *inputs[1:])
