"""Training with parameters that are divided among the processes (FSDP2): gradients' norm, averages, whole tensors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from sanactl.model.tensors import TensorFile
from sanactl.optim.resharding import Source, Whole, cut_rows, cut_state, whole, whole_state
from sanactl.optim.sharded import is_sharded, local

__all__ = [
    "FileSource",
    "any_sharded",
    "clip_gradients",
    "cut_average",
    "cut_optimizer",
    "fill",
    "local_parameters",
    "sources",
    "whole_average",
    "whole_optimizer",
]


def any_sharded(parameters: Iterable[Tensor]) -> bool:
    """Whether some of these are divided among the processes."""
    return any(is_sharded(p) for p in parameters)


def local_parameters(parameters: Iterable[Tensor]) -> list[Tensor]:
    """This process's rows of parameters, with their memory, for elementwise arithmetic; whole ones as they are."""
    return [
        local(p.detach()).detach().requires_grad_(p.requires_grad) if is_sharded(p) else p for p in parameters
    ]


def clip_gradients(parameters: list[torch.nn.Parameter], largest: float) -> Tensor:
    """Scales the gradients down to a global norm of `largest`, where it is finite; the norm before, over all processes.

    Nothing is read from the device.

    Args:
        largest: infinite: nothing is scaled.

    Returns:
        the norm, float32 [].
    """
    sharded = any_sharded(parameters)
    gradients = [local(p.grad) for p in parameters if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients).float()
    if sharded:
        square = norm.double().square()
        torch.distributed.all_reduce(square)
        norm = square.sqrt().float()
    if gradients and math.isfinite(largest):
        # As torch's clip_grads_with_norm_. A norm that is not finite would spread to every gradient, and hide where it
        # came from.
        factor = (largest / (norm + 1e-6)).clamp(max=1.0)
        torch._foreach_mul_(gradients, torch.where(norm.isfinite(), factor, 1.0))
    return norm


class FileSource:
    """A tensor of an open safetensors file."""

    def __init__(self, file: TensorFile, name: str) -> None:
        self.file, self.name = file, name
        self.shape: tuple[int, ...] = tuple(file.refs[name].shape)

    def rows(self, start: int, stop: int) -> Tensor:
        return self.read()[start:stop] if start == stop else self.file.rows(self.name, start, stop)

    def read(self) -> Tensor:
        return self.file.read(self.name)


class _Held:
    """A tensor in memory, or in a mapped file, of which rows are copied."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor, self.shape = tensor, tuple(tensor.shape)

    def rows(self, start: int, stop: int) -> Tensor:
        return self.tensor[start:stop].clone()

    def read(self) -> Tensor:
        return self.tensor


def sources(file: TensorFile) -> dict[str, Source]:
    """Every tensor of a file."""
    return {name: FileSource(file, name) for name in file.refs}


def fill(tensors: Mapping[str, Tensor], saved: Mapping[str, Source]) -> None:
    """Copies saved tensors into those of the same names, each process its rows.

    Raises:
        ValueError: other names or shapes.
    """
    if tensors.keys() != saved.keys():
        raise ValueError(f"{min(tensors.keys() ^ saved.keys())} is in one of the two alone")
    for name, tensor in tensors.items():
        source = saved[name]
        if tuple(source.shape) != tuple(tensor.shape):
            raise ValueError(f"{name} is {list(source.shape)} and not {list(tensor.shape)}")
        if is_sharded(tensor):
            local(tensor.detach()).copy_(local(cut_rows(tensor, source)))
        else:
            tensor.detach().copy_(source.read())


def _entries(optimizer: torch.optim.Optimizer) -> Iterator[tuple[int, Tensor, dict[str, Any]]]:
    """Each parameter with its number in a state_dict, and its group."""
    number = 0
    for group in optimizer.param_groups:
        for p in group["params"]:
            yield number, p, group
            number += 1


def whole_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Any], dict[str, Tensor | Whole]]:
    """An optimizer's state_dict without the tensors that are divided; and these as whole ones, by "number.key"."""
    state = optimizer.state_dict()
    kept: dict[int, dict[str, Any]] = {}
    divided: dict[str, Tensor | Whole] = {}
    for number, p, group in _entries(optimizer):
        for key, value in state["state"].get(number, {}).items():
            if is_sharded(value):
                divided[f"{number}.{key}"] = whole_state(p, group, key, value)
            else:
                kept.setdefault(number, {})[key] = value
    return {**state, "state": kept}, divided


def cut_optimizer(
    optimizer: torch.optim.Optimizer, state: dict[str, Any], divided: Mapping[str, Source]
) -> dict[str, Any]:
    """A state_dict for `optimizer.load_state_dict`: whole tensors, or this process's part where the parameter is sharded.

    Args:
        state: as saved, with whole tensors, or without those of `divided`.
    """
    found: dict[int, dict[str, Any]] = {number: dict(values) for number, values in state["state"].items()}
    for name, source in divided.items():
        of, _, key = name.partition(".")
        found.setdefault(int(of), {})[key] = source
    for number, p, group in _entries(optimizer):
        for key, value in found.get(number, {}).items():
            source = _Held(value) if isinstance(value, Tensor) else value
            if not isinstance(source, (_Held, FileSource)):
                continue
            found[number][key] = cut_state(p, group, key, source) if is_sharded(p) else source.read()
    return {**state, "state": found}


def whole_average(
    state: dict[str, Any], parameters: Iterable[Tensor]
) -> tuple[dict[str, Any], dict[str, Tensor | Whole]]:
    """The state_dict of an `EMAModel` over `local_parameters` without its tensors; and these as whole ones, by number."""
    tensors: dict[str, Tensor | Whole] = {}
    for number, (p, shadow) in enumerate(zip(parameters, state["shadow_params"], strict=True)):
        tensors[str(number)] = whole(_like(p, shadow))
    return {**state, "shadow_params": []}, tensors


def cut_average(
    state: dict[str, Any], saved: Mapping[str, Source], parameters: Iterable[Tensor]
) -> dict[str, Any]:
    """A state_dict for `EMAModel.load_state_dict`, with this process's rows.

    Args:
        state: as saved, with whole tensors, or with none, which are then `saved`.
    """
    held = state["shadow_params"]
    every: list[Source] = [_Held(t) for t in held] if held else [saved[str(n)] for n in range(len(saved))]
    shadows = [
        local(cut_rows(p, source)) if is_sharded(p) else source.read().to(p.device)
        for p, source in zip(parameters, every, strict=True)
    ]
    return {**state, "shadow_params": shadows}


def _like(p: Any, rows: Tensor) -> Any:
    """This process's rows as a DTensor that is divided as `p`; themselves where `p` is not."""
    if not is_sharded(p):
        return rows
    from torch.distributed.tensor import DTensor

    return DTensor.from_local(
        rows, p.device_mesh, p.placements, run_check=False, shape=p.shape, stride=p.stride()
    )
