"""Counting what an optimizer's step launches on a GPU, on a machine without one.

Parameters are on torch's meta device: they have shapes and no memory, so a whole model is counted in seconds. torch
operations other than views count as one launch each, although some are two; Triton kernels count and are not run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sanactl.bench.contenders import LR
from sanactl.bench.optim import MODELS, block_shapes
from sanactl.errors import UsageError
from sanactl.optim import build_optimizer
from sanactl.optim.listwise import ListwiseCAME8bit

__all__ = ["WAYS", "count_launches"]

META = torch.device("meta")
# Allocations, and what only changes how a tensor is seen.
_FREE = ("empty", "empty_like", "empty_strided", "new_empty", "detach", "alias", "lift_fresh", "set_")
# An optimizer and whether Triton kernels may be used.
WAYS: dict[str, tuple[Any, bool]] = {
    "came8bit": ("came8bit", True),
    "came": ("came", True),
    "came8bit-torch": ("came8bit", False),
    "came8bit-public": (ListwiseCAME8bit, False),
}


class _Launches(TorchDispatchMode):
    """Counts operations on tensors of the meta device."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        free = func.is_view or func.overloadpacket.__name__ in _FREE
        tensors = (t for t in tree_leaves((args, kwargs, found)) if isinstance(t, torch.Tensor))
        self.count += not free and any(t.device == META for t in tensors)
        return found


def count_launches(
    model: str,
    blocks: int | None = None,
    *,
    ways: list[str] | None = None,
    dtype: torch.dtype = torch.bfloat16,
) -> Iterator[dict[str, Any]]:
    """Count the launches of one step, the second, over the blocks of a model.

    Args:
        model: one of `sanactl.bench.optim.MODELS`.
        blocks: of the model; all of them by default.
        ways: names from `WAYS`; all of them by default.
        dtype: of parameters and gradients.

    Yields:
        A row for each way: `optimizer`, `model`, `blocks`, `parameters`, `dtype`, `torch` (operations), `triton` (kernels),
        `launches` (both).

    Raises:
        UsageError: a name is unknown; or triton is not installed.
    """
    names = list(WAYS) if ways is None else ways
    unknown = [name for name in names if name not in WAYS]
    if unknown:
        raise UsageError(f"cannot count launches of {unknown[0]!r}", hint=f"use some of {', '.join(WAYS)}")
    count = MODELS[model][2] if blocks is None else blocks
    shapes = block_shapes(model) * count
    for name in names:
        operations, kernels = _count(*WAYS[name], shapes, dtype)
        yield {
            "optimizer": name,
            "model": model,
            "blocks": count,
            "parameters": sum(torch.Size(shape).numel() for shape in shapes),
            "dtype": str(dtype).removeprefix("torch."),
            "torch": operations,
            "triton": kernels,
            "launches": operations + kernels,
        }


def _count(
    optimizer: Any, triton: bool, shapes: list[tuple[int, ...]], dtype: torch.dtype
) -> tuple[int, int]:
    params = [nn.Parameter(torch.empty(shape, device=META, dtype=dtype)) for shape in shapes]
    for p in params:
        p.grad = torch.empty_like(p)
    with _environment("SANACTL_NO_TRITON", "0" if triton else "1"), _counted_kernels() as kernels:
        if isinstance(optimizer, str):
            made: Any = build_optimizer(optimizer, params, LR, capturable=True)
        else:
            made = optimizer(params, lr=LR)
        made.step()
        kernels.clear()
        with _Launches() as operations:
            made.step()
    return operations.count, len(kernels)


@contextmanager
def _counted_kernels() -> Iterator[list[Any]]:
    """Within this, Triton kernels are not run; the list grows by one with each."""
    try:
        from triton.runtime.jit import JITFunction
    except ImportError as error:
        raise UsageError("launches are counted with triton", hint="pip install triton") from error
    launched: list[Any] = []
    run = JITFunction.run
    JITFunction.run = lambda self, *_, **__: launched.append(self)
    try:
        yield launched
    finally:
        JITFunction.run = run


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before
