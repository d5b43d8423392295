"""What CAME keeps for a parameter: which tensors, of which shapes; how they are saved and loaded bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from sanactl.errors import InputError
from sanactl.optim.moment import Moment

__all__ = [
    "Entry",
    "as_matrix",
    "check_state",
    "empty_state",
    "entries",
    "is_matrix",
    "keep_tensors",
    "moment_of",
    "restore",
]

Group = dict[str, Any]
OFFSETS = {"linear": "exp_avg_min", "zero": "exp_avg_zero"}


class Entry(NamedTuple):
    """A parameter, where it stands (`position` counts over all groups), and how to call it in a message."""

    p: Tensor
    group: Group
    position: int
    name: str


def entries(groups: list[Group]) -> Iterator[Entry]:
    """Every parameter of the groups, in order."""
    position = 0
    for i, group in enumerate(groups):
        for j, p in enumerate(group["params"]):
            label = f"'{group['param_names'][j]}'" if "param_names" in group else f"{j} of group {i}"
            yield Entry(p, group, position, f"parameter {label} {list(p.shape)}")
            position += 1


def is_matrix(p: Tensor) -> bool:
    """Whether a parameter is a linear weight or a convolution whose kernel is 1 in every direction."""
    return p.ndim >= 2 and all(side == 1 for side in p.shape[2:])


def as_matrix(t: Tensor) -> Tensor:
    """A view of a matrix parameter, its gradient or its state as [out, in]."""
    return t[(...,) + (0,) * (t.ndim - 2)]


def block_size(p: Tensor, group: Group) -> int | None:
    """Flattened values in one 8-bit block of a parameter's first moment; None where it stays fp32."""
    if "code" not in group or not is_matrix(p) or p.numel() <= group["min_8bit_size"]:
        return None
    # A matrix is stored row after row, so a run of whole rows is a run of flattened values.
    return int(group["block_size"]) * (p.shape[1] if group["blocking"] == "rows" else 1)


def empty_state(p: Tensor, group: Group) -> dict[str, Tensor]:
    """The state before the first step: zeros, each of its final shape and dtype, on the parameter's device."""
    state = {"step": torch.zeros((), device="meta" if p.is_meta else "cpu")}
    block = block_size(p, group)
    if block is None:
        state["exp_avg"] = torch.zeros(p.shape, device=p.device)
    else:
        blocks = -(-p.numel() // block)
        state["exp_avg_codes"] = torch.zeros(p.shape, dtype=torch.uint8, device=p.device)
        state["exp_avg_scale"] = torch.zeros(blocks, device=p.device)
        if group["code"] == "linear":
            state["exp_avg_min"] = torch.zeros(blocks, device=p.device)
        elif group["code"] == "zero":
            state["exp_avg_zero"] = torch.zeros(blocks, dtype=torch.uint8, device=p.device)
    if is_matrix(p):
        for statistic in ("exp_avg_sq", "exp_avg_res"):
            state[f"{statistic}_row"] = torch.zeros(p.shape[0], device=p.device)
            state[f"{statistic}_col"] = torch.zeros(p.shape[1], device=p.device)
    else:
        state["exp_avg_sq"] = torch.zeros(p.shape, device=p.device)
    return state


def moment_of(p: Tensor, state: dict[str, Tensor], group: Group) -> Moment:
    """The first moment of a matrix parameter: a view of its state."""
    block = block_size(p, group)
    if block is None:
        return Moment(as_matrix(state["exp_avg"]))
    offset = state.get(OFFSETS.get(group["code"], ""))
    return Moment(as_matrix(state["exp_avg_codes"]), state["exp_avg_scale"], offset, block, group["code"])


def keep_tensors(_: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
    """A hook before loading: wrap the tensors of a state_dict, so that torch does not cast them."""

    def keep(values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {k: _Kept(v) if isinstance(v, Tensor) else v for k, v in values.items()}

    return {**state_dict, "state": {k: keep(values) for k, values in state_dict["state"].items()}}


def restore(entry: Entry, values: dict[str, Any]) -> dict[str, Any]:
    """A loaded state with its tensors unwrapped, on the parameter's device; the step count stays on the CPU.

    Raises:
        InputError: it is not what this optimizer keeps for the parameter.
    """
    state = {}
    for key, value in values.items():
        if isinstance(value, _Kept):
            value = value.tensor.detach().to("cpu" if key == "step" else entry.p.device, copy=True)
        state[key] = value
    check_state(entry, state)
    return state


def check_state(entry: Entry, state: dict[str, Any]) -> None:
    """Raise InputError unless `state` has the tensors, shapes and dtypes that belong to the parameter."""
    wanted = {k: (v.shape, v.dtype) for k, v in empty_state(entry.p.to("meta"), entry.group).items()}
    found = {k: (v.shape, v.dtype) if isinstance(v, Tensor) else type(v) for k, v in state.items()}
    for key in sorted(wanted.keys() | found.keys()):
        if wanted.get(key) != found.get(key):
            raise InputError(
                f"the saved optimizer state does not fit {entry.name}: its {key} is {_describe(found.get(key))}, "
                f"not {_describe(wanted.get(key))}",
                hint="load a state that the same optimizer saved for the same model",
            )


class _Kept:
    """Carries a tensor through torch's loading, which casts tensors and passes on what it does not know."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def _describe(found: Any) -> str:
    if found is None:
        return "absent"
    if isinstance(found, type):
        return f"a Python {found.__name__}"
    shape, dtype = found
    return f"{str(dtype).removeprefix('torch.')} {list(shape)}"
