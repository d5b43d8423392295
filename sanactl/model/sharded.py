"""Loading a transformer whose parameters are divided among the processes, by torch's FSDP2 (`fully_shard`).

Each process has some rows of every parameter. A block's parameters are collected when it computes, and its gradients are
added up over the processes and divided again. No process reads or holds more of the file than its rows.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any

import torch
from torch import Tensor

from sanactl.checkpoint.copy import Sources
from sanactl.checkpoint.open import Checkpoint
from sanactl.errors import InputError
from sanactl.model.loading import empty_transformer, fill_position_embedding
from sanactl.model.tensors import read_tensor
from sanactl.optim.sharded import is_sharded, local, part_of

__all__ = ["load_sharded_transformer", "scatter"]

_ADAPTED = ".base_layer."  # in the name of a weight that peft has put an adapter beside


def load_sharded_transformer(
    checkpoint: Checkpoint,
    *,
    device: torch.device,
    dtype: torch.dtype,
    prepare: Callable[[Any], None] = lambda model: None,
) -> Any:
    """The checkpoint's `SanaTransformer2DModel` in eval mode, divided over all processes, which all have to call this.

    Args:
        prepare: chooses what is trained of the model, or adds adapters to it; it sees shapes and no weights.

    Raises:
        InputError: the weights do not fit the config, or the file changed since it was opened.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    warnings.filterwarnings("ignore", "FSDP2-wrapped module")  # its output is a view, which nothing writes to
    model = empty_transformer(checkpoint)
    # Before `prepare`, as in `load_transformer`: both draw random numbers, and adapters are to be the same.
    fill_position_embedding(model, checkpoint)
    model.to(dtype)
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    added = _prepared(model, prepare)
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    for part in (*model.transformer_blocks, model):
        fully_shard(part, mesh=mesh, reshard_after_forward=True)
    model.to_empty(device=device)
    parameters = dict(model.named_parameters())
    names = {name: name.replace(_ADAPTED, ".") for name in parameters if name not in added}
    missing, unexpected = (
        set(names.values()) - set(checkpoint.tensors),
        set(checkpoint.tensors) - set(names.values()),
    )
    if missing or unexpected:
        what = (
            f"lacks {min(missing)}" if missing else f"has {min(unexpected)}, which its config does not know"
        )
        raise InputError(f"{checkpoint.path}: {what}")
    with closing(Sources(checkpoint.stamps)) as sources:
        for name, stored in names.items():
            ref, part = checkpoint.tensors[stored], part_of(parameters[name])
            mine = local(parameters[name].detach())
            if len(mine):
                mine.copy_(read_tensor(sources, ref.rows(part.first, part.first + len(mine))))
        sources.check()
    for name, tensor in added.items():
        scatter(tensor, parameters[name])
    for name, buffer in model.named_buffers():
        buffer.copy_(buffers[name])
    return model.eval()


def scatter(whole: Tensor, target: Tensor) -> None:
    """Copies this process's rows of a tensor that every process has into `target`, a DTensor or a plain tensor."""
    target = target.detach()
    if not is_sharded(target):
        target.copy_(whole)
        return
    mine, first = local(target), part_of(target).first
    mine.copy_(whole[first : first + len(mine)])


def _prepared(model: Any, prepare: Callable[[Any], None]) -> Mapping[str, Tensor]:
    """Calls `prepare`; the parameters that it added, with their values.

    peft puts new parameters on the device of the weight beside them. So the weights are zeros of no size on the CPU
    meanwhile: one number, repeated.
    """
    _replace(model, lambda p: torch.zeros((), dtype=p.dtype).expand(p.shape))
    before = {id(p) for p in model.parameters()}
    prepare(model)
    added = {name: p.detach().clone() for name, p in model.named_parameters() if id(p) not in before}
    _replace(model, lambda p: p.detach().to("meta"))
    return added


def _replace(model: Any, make: Callable[[Tensor], Tensor]) -> None:
    for module in model.modules():
        for name, p in module._parameters.items():
            if p is not None:
                module._parameters[name] = torch.nn.Parameter(make(p), requires_grad=p.requires_grad)
