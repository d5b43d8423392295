"""CAME's state of a parameter: its tensors and shapes, and how they are saved and loaded bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from sanactl.errors import InputError
from sanactl.optim.moment import Moment
from sanactl.optim.sharded import block_range, blocks_by_process, is_sharded, local, part_of, zeros_like_rows

__all__ = [
    "IDENTITY",
    "Entry",
    "as_matrix",
    "check_state",
    "empty_state",
    "entries",
    "is_matrix",
    "keep_tensors",
    "layout",
    "moment_of",
    "restore",
]

Group = dict[str, Any]
# With stochastic rounding, the state also has the number that makes a parameter's random numbers its own; on the CPU.
IDENTITY = "rounding_identity"
OFFSETS = {"linear": "exp_avg_min", "zero": "exp_avg_zero"}


class Entry(NamedTuple):
    """A parameter, its group, its `position` over all groups, and its place: the group's number, its own in the group."""

    p: Tensor
    group: Group
    position: int
    place: tuple[int, int]

    @property
    def given(self) -> str:
        """The name that the user gave it, or ""."""
        return str(self.group["param_names"][self.place[1]]) if "param_names" in self.group else ""

    @property
    def name(self) -> str:
        """Its name for messages."""
        group, number = self.place
        label = f"'{self.given}'" if self.given else f"{number} of group {group}"
        return f"parameter {label} {list(self.p.shape)}"


def entries(groups: list[Group]) -> Iterator[Entry]:
    """Every parameter of the groups, in order."""
    position = 0
    for i, group in enumerate(groups):
        for j, p in enumerate(group["params"]):
            yield Entry(p, group, position, (i, j))
            position += 1


def is_matrix(p: Tensor) -> bool:
    """Whether a parameter is a linear weight or a convolution whose kernel is 1 in every direction."""
    return p.ndim >= 2 and all(side == 1 for side in p.shape[2:])


def as_matrix(t: Tensor) -> Tensor:
    """A view of a matrix parameter, its gradient or its state as [out, in]."""
    return t[(...,) + (0,) * (t.ndim - 2)]


def block_size(p: Tensor, group: Group) -> int | None:
    """Flattened values in one 8-bit block of a parameter's first moment; None where it stays fp32."""
    if "scheme" not in group or not is_matrix(p) or p.numel() <= group["min_8bit_size"]:
        return None
    # A matrix is stored row after row, so a run of whole rows is a run of flattened values.
    return int(group["block_size"]) * (p.shape[1] if group["blocking"] == "rows" else 1)


def layout(p: Tensor, group: Group) -> dict[str, tuple[tuple[int, ...], torch.dtype, str]]:
    """The state of a parameter: name to shape, dtype, and how it is divided among processes if the parameter is sharded.

    `rows`: divided as the parameter; `blocks`: one row for each process (`sharded.blocks_by_process`); `all`: the same on
    each process.
    """
    shape, fp32 = tuple(p.shape), torch.float32
    kept: dict[str, tuple[tuple[int, ...], torch.dtype, str]] = {"step": ((), fp32, "all")}
    block = block_size(p, group)
    if block is None:
        kept["exp_avg"] = (shape, fp32, "rows")
    else:
        blocks = (-(-p.numel() // block),)
        kept["exp_avg_codes"] = (shape, torch.uint8, "rows")
        kept["exp_avg_scale"] = (blocks, fp32, "blocks")
        if group["scheme"] == "linear":
            kept["exp_avg_min"] = (blocks, fp32, "blocks")
        elif group["scheme"] == "zero":
            kept["exp_avg_zero"] = (blocks, torch.uint8, "blocks")
    if is_matrix(p):
        for statistic in ("exp_avg_sq", "exp_avg_res"):
            kept[f"{statistic}_row"] = (shape[:1], fp32, "rows")
            kept[f"{statistic}_col"] = (shape[1:2], fp32, "all")
    else:
        kept["exp_avg_sq"] = (shape, fp32, "rows")
    return kept


def empty_state(p: Tensor, group: Group) -> dict[str, Tensor]:
    """The state before the first step: zeros, each of its final shape and dtype, on the parameter's device."""
    state = {}
    for key, (shape, dtype, shared) in layout(p, group).items():
        if not is_sharded(p) or shared == "all":
            state[key] = torch.zeros(shape, dtype=dtype, device=p.device)
        elif shared == "rows":
            state[key] = zeros_like_rows(p, shape, dtype)
        else:
            state[key] = zeros_like_rows(p, blocks_by_process(p, block_size(p, group) or 1), dtype)
    return state


def moment_of(p: Tensor, state: dict[str, Tensor], group: Group) -> Moment:
    """The first moment of a matrix parameter, or of this process's rows of it: a view of its state."""
    block = block_size(p, group)
    if block is None:
        return Moment(as_matrix(local(state["exp_avg"])))
    codes = as_matrix(local(state["exp_avg_codes"]))
    scale, offset = state["exp_avg_scale"], state.get(OFFSETS.get(group["scheme"], ""))
    if not is_sharded(p):
        return Moment(codes, scale, offset, block, group["scheme"])
    part = part_of(p)
    blocks = len(block_range(p, block, part.rank))
    scale = local(scale).flatten()[:blocks]
    offset = None if offset is None else local(offset).flatten()[:blocks]
    return Moment(codes, scale, offset, block, group["scheme"], part.first)


def keep_tensors(_: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
    """A hook before loading: wrap the tensors of a state_dict, so that torch does not cast them."""

    def keep(values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {k: _Kept(v) if isinstance(v, Tensor) else v for k, v in values.items()}

    return {**state_dict, "state": {k: keep(values) for k, values in state_dict["state"].items()}}


def restore(entry: Entry, values: dict[str, Any]) -> dict[str, Any]:
    """A loaded state with its tensors unwrapped, on the parameter's device.

    Raises:
        InputError: it is not a state of this optimizer for this parameter.
    """
    state = {}
    for key, value in values.items():
        if isinstance(value, _Kept):
            value = value.tensor.detach().to("cpu" if key == IDENTITY else entry.p.device, copy=True)
        state[key] = value
    check_state(entry, state)
    return state


def check_state(entry: Entry, state: dict[str, Any]) -> None:
    """Raise InputError unless `state` has the tensors, shapes and dtypes that belong to the parameter."""
    wanted = {}
    for key, (shape, dtype, shared) in layout(entry.p, entry.group).items():
        if is_sharded(entry.p) and shared == "blocks":
            shape = blocks_by_process(entry.p, block_size(entry.p, entry.group) or 1)
        wanted[key] = (shape, dtype, is_sharded(entry.p) and shared != "all")
    found = {
        k: (tuple(v.shape), v.dtype, is_sharded(v)) if isinstance(v, Tensor) else type(v)
        for k, v in state.items()
    }
    if IDENTITY in found:
        wanted[IDENTITY] = ((), torch.int64, False)
    for key in sorted(wanted.keys() | found.keys()):
        if wanted.get(key) != found.get(key):
            raise InputError(
                f"the saved optimizer state does not fit {entry.name}: its {key} is {_describe(found.get(key))}, "
                f"not {_describe(wanted.get(key))}",
                hint="load a state that the same optimizer saved for the same model"
                + (" on as many processes" if is_sharded(entry.p) else ""),
            )


class _Kept:
    """Wraps a tensor during torch's loading, because torch casts tensors but leaves unknown objects unchanged."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def _describe(found: Any) -> str:
    if found is None:
        return "absent"
    if isinstance(found, type):
        return f"a Python {found.__name__}"
    shape, dtype, sharded = found
    return f"{str(dtype).removeprefix('torch.')} {list(shape)}{' in shards' if sharded else ''}"
