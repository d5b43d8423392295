"""The files of a saved state: weights, optimizer and average.

One process's optimizer is one file, `optimizer.pt`. From sharded parameters, that file has what is not divided, and
`optimizer.safetensors` beside it the rest, as the tensors that one process would have: they are collected and written one
by one. The average is saved in the same way. Either form is loaded by any number of processes, each of which reads its rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from sanactl.model.saving import write_tensors
from sanactl.model.tensors import TensorFile
from sanactl.optim.resharding import Source, Whole, whole
from sanactl.training.sharding import (
    any_sharded,
    cut_average,
    cut_optimizer,
    sources,
    whole_average,
    whole_optimizer,
)

__all__ = ["Stateful", "Trained", "read_parts", "write_parts"]


class Stateful(Protocol):
    """What a state needs of what is trained; a `torch.nn.Module` has it."""

    def parameters(self) -> Iterator[torch.nn.Parameter]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Any) -> Any: ...


class Trained(Stateful, Protocol):
    """A model, and which of its parameters are trained.

    Attributes:
        model: the whole model.
        named: the parameters that are trained, with their names; `parameters` gives them alone.
    """

    model: Any
    named: list[tuple[str, torch.nn.Parameter]]


@runtime_checkable
class HasExtra(Protocol):
    """A `Stateful` whose `state_dict` does not hold all of its state."""

    def extra(self) -> dict[str, torch.Tensor]: ...

    def load_extra(self, extra: Mapping[str, torch.Tensor]) -> None: ...


def write_parts(
    folder: Path | None,
    model: Stateful,
    optimizer: torch.optim.Optimizer,
    average: Any,
    header: Mapping[str, str],
) -> None:
    """Writes weights, optimizer and average.

    Args:
        folder: None on processes that have a part of the model and do not write.
        header: of the weights' file.
    """
    plain = {"format": "pt"}
    _write(model.state_dict(), folder, "model.safetensors", header)
    extra = model.extra() if isinstance(model, HasExtra) else {}
    if extra:
        _write(extra, folder, "extra.safetensors", plain)
    state, divided = whole_optimizer(optimizer)
    if divided:
        _write(divided, folder, "optimizer.safetensors", plain)
    if folder is not None:
        torch.save(state, folder / "optimizer.pt")
    if average is None:
        return
    state = average.state_dict()
    if any_sharded(model.parameters()):
        state, divided = whole_average(state, model.parameters())
        _write(divided, folder, "average.safetensors", plain)
    if folder is not None:
        torch.save(state, folder / "average.pt")


def _write(tensors: Mapping[str, Any], folder: Path | None, name: str, header: Mapping[str, str]) -> None:
    lazily: dict[str, torch.Tensor | Whole] = {
        key: tensor if isinstance(tensor, Whole) else whole(tensor) for key, tensor in tensors.items()
    }
    write_tensors(lazily, None if folder is None else folder / name, header)


def read_parts(folder: Path, model: Stateful, optimizer: torch.optim.Optimizer, average: Any) -> None:
    """Loads what `write_parts` has written, whatever the number of processes was.

    Raises:
        Exception: of various kinds, where the files do not fit.
    """
    from safetensors.torch import load_file

    sharded, device = any_sharded(model.parameters()), str(next(model.parameters()).device)
    where = "cpu" if sharded else device
    with ExitStack() as opened:

        def divided(name: str) -> dict[str, Source]:
            if not (folder / name).exists():
                return {}
            file = TensorFile(folder / name)
            opened.callback(file.close)
            return sources(file)

        if sharded:
            model.load_state_dict(divided("model.safetensors"))
        else:
            model.load_state_dict(load_file(folder / "model.safetensors", device=device))
        if (folder / "extra.safetensors").exists():
            assert isinstance(model, HasExtra), model
            model.load_extra(load_file(folder / "extra.safetensors", device=device))
        # Mapped where it can be, so that a process reads the rows that it needs. The optimizer takes each tensor to where
        # it belongs; a second copy of all may not fit a GPU.
        state = torch.load(folder / "optimizer.pt", weights_only=True, map_location="cpu", mmap=sharded)
        optimizer.load_state_dict(cut_optimizer(optimizer, state, divided("optimizer.safetensors")))
        if average is not None:
            state = torch.load(folder / "average.pt", weights_only=True, map_location=where, mmap=sharded)
            average.load_state_dict(cut_average(state, divided("average.safetensors"), model.parameters()))
