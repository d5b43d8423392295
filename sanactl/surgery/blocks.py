"""Names and roles of the tensors of a SANA block, and the assembly of a checkpoint from blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sanactl.checkpoint.generate import FLOAT_DTYPES
from sanactl.checkpoint.metadata import lineage_entry
from sanactl.checkpoint.sana import block_shapes
from sanactl.checkpoint.table import Checkpoint
from sanactl.checkpoint.write import Ones, Plan, PlannedTensor, Zeros, copy_of
from sanactl.errors import InputError

__all__ = [
    "OUTPUT_PROJECTIONS",
    "block_name",
    "check_float",
    "child_plan",
    "copied_block",
    "is_attention_bias",
    "is_output_projection",
    "is_qk_norm",
    "with_qk_norm",
]

# The tensors by which a block adds to its input. If all of them are zero, the block is the identity (section 2.2).
OUTPUT_PROJECTIONS = ("attn1.to_out.0", "attn2.to_out.0", "ff.conv_point")


def block_name(index: int, name: str) -> str:
    """Full name of tensor `name` of block `index`."""
    return f"transformer_blocks.{index}.{name}"


def is_output_projection(name: str) -> bool:
    """Whether a tensor, named within its block, is a weight or bias of an output projection."""
    return name.rpartition(".")[0] in OUTPUT_PROJECTIONS


def is_qk_norm(name: str) -> bool:
    """Whether a tensor, named within its block, belongs to the normalisation of queries or keys."""
    return name.rpartition(".")[0].endswith((".norm_q", ".norm_k"))


def is_attention_bias(name: str) -> bool:
    """Whether a tensor, named within its block, is the bias of an attention's query, key or value projection."""
    return name.startswith(("attn1.to_", "attn2.to_")) and name.endswith(".bias")


def copied_block(checkpoint: Checkpoint, index: int) -> dict[str, PlannedTensor]:
    """Block `index` copied byte for byte."""
    return {name: copy_of(ref) for name, ref in checkpoint.block_tensors(index).items()}


def child_plan(
    checkpoint: Checkpoint,
    blocks: Sequence[Mapping[str, PlannedTensor]],
    *,
    command: str,
    arguments: Mapping[str, Any],
    seed: int | None = None,
    config: Mapping[str, Any] | None = None,
    warnings: Sequence[str] = (),
) -> Plan:
    """The plan of a checkpoint with these blocks; everything else is as in its parent.

    Args:
        checkpoint: the parent.
        blocks: each block's tensors, named within the block, in order.
        command, arguments, seed: for the lineage.
        config: settings that differ from the parent's besides num_layers.
        warnings: for the user.
    """
    tensors = {name: copy_of(ref) for name, ref in checkpoint.outer_tensors().items()}
    for index, block in enumerate(blocks):
        tensors.update({block_name(index, name): tensor for name, tensor in block.items()})
    parent = {"name": checkpoint.name}  # its digest is added when the plan is written
    entry = lineage_entry(command, arguments, parents=[parent], blocks=len(blocks), seed=seed)
    # a published title names a size ("SANA1.5 1.6B") that is wrong now; sanactl makes a title from the config
    extra = {key: value for key, value in checkpoint.metadata.items() if key != "modelspec.title"}
    return Plan(
        tensors=tensors,
        config=replace(checkpoint.config, **{**(config or {}), "num_layers": len(blocks)}),
        before=checkpoint,
        components=checkpoint.components,
        sampling=checkpoint.sampling,
        lineage=[*checkpoint.lineage, entry],
        extra=extra,
        warnings=list(warnings),
    )


def check_float(checkpoint: Checkpoint, name: str, dtype: str) -> None:
    """Raise InputError if new weights of this dtype cannot be computed; `name` is the tensor's name within its block."""
    if dtype not in FLOAT_DTYPES:
        raise InputError(
            f"{checkpoint.ref}: cannot make new weights of dtype {dtype} ({name})",
            hint="cast it first: sanactl convert --dtype bf16",
        )


def with_qk_norm(
    checkpoint: Checkpoint, block: Mapping[str, PlannedTensor], config: Mapping[str, Any]
) -> dict[str, PlannedTensor]:
    """The block with the QK norms of `config` added (all weights one), in the order of the class's tensors."""
    result = {}
    for name, shape in block_shapes(config).items():
        if name in block:
            result[name] = block[name]
        else:
            assert is_qk_norm(name), name
            attention = name.split(".")[0]
            dtype = block[f"{attention}.to_q.weight"].dtype
            check_float(checkpoint, name, dtype)
            result[name] = PlannedTensor(dtype, shape, Ones() if name.endswith(".weight") else Zeros())
    return result
