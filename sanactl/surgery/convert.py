"""Conversion to another layout or dtype. Between layouts no value is computed: there and back gives the same bytes."""

from __future__ import annotations

import os
from typing import Any

from sanactl.checkpoint.layouts.entry import Layout
from sanactl.checkpoint.layouts.registry import LAYOUTS
from sanactl.checkpoint.metadata import lineage_entry
from sanactl.checkpoint.sana import expected_tensors
from sanactl.checkpoint.table import Checkpoint, TensorRef
from sanactl.checkpoint.target import target_layout
from sanactl.checkpoint.write import Blend, Bytes, Plan, PlannedTensor
from sanactl.errors import InputError, UsageError
from sanactl.files.dtypes import DTYPES, find_dtype
from sanactl.files.float8 import FLOAT8_DTYPES

__all__ = ["parse_dtype", "plan_convert"]

_FLOATS = ("F64", "F32", "F16", "BF16", *FLOAT8_DTYPES)


def parse_dtype(text: str) -> str:
    """The safetensors name of "bf16", "fp16" or "fp32" (or torch's long names).

    Raises:
        UsageError: it is another name.
    """
    dtype = find_dtype(text)
    if dtype is None:
        raise UsageError(f"unknown dtype {text!r}", hint="choose bf16, fp16 or fp32")
    return dtype.name


def plan_convert(checkpoint: Checkpoint, target: str | os.PathLike[str], dtype: str | None = None) -> Plan:
    """The plan that writes `checkpoint` in `target`'s layout.

    Args:
        checkpoint: opened with `native=True` if it may be in another layout.
        target: its name decides the layout: a .st or .safetensors file or a folder (diffusers), a .pth (native), or a file
            of another layout in `sanactl.checkpoint.layouts`.
        dtype: "bf16", "fp16" or "fp32" to cast every tensor, rounding to nearest even. None keeps all bytes and the lineage.

    Raises:
        UsageError: the dtype is unknown, or the suffix is not that of a checkpoint.
        InputError: the native layout cannot hold the model, or a tensor consists of whole numbers, so a cast makes no sense.
    """
    wanted = parse_dtype(dtype) if dtype is not None else None
    quantised = next((name for name, ref in checkpoint.tensors.items() if ref.dtype not in _FLOATS), None)
    if wanted is not None and quantised is not None:
        raise InputError(
            f"{checkpoint.ref} holds {checkpoint.tensors[quantised].dtype} tensors ({quantised}), which are not"
            " floating-point numbers: a cast does not undo a quantisation",
            hint="convert the checkpoint from which it was made",
        )
    layout = target_layout(target)
    if layout in LAYOUTS:
        tensors = _renamed(checkpoint, LAYOUTS[layout], wanted)
    else:
        # in the order of the class's state dict, so the same tensors give the same file from any layout
        tensors = {
            name: _converted((checkpoint.tensors[name],), wanted)
            for name in expected_tensors(checkpoint.config)
        }
    lineage = list(checkpoint.lineage)
    if wanted is not None and any(ref.dtype != wanted for ref in checkpoint.tensors.values()):
        parent = {"name": checkpoint.name}  # its digest is taken when the plan is written
        arguments: dict[str, Any] = {"dtype": wanted}
        lineage.append(lineage_entry("convert", arguments, parents=[parent], blocks=checkpoint.num_blocks))
    return Plan(
        tensors=tensors,
        config=checkpoint.config,
        before=checkpoint,
        components=checkpoint.components,
        sampling=checkpoint.sampling,
        lineage=lineage,
        extra=checkpoint.metadata,
        warnings=_warnings(checkpoint, wanted),
        layout=layout,
    )


def _converted(refs: tuple[TensorRef, ...], wanted: str | None) -> PlannedTensor:
    """Tensors joined by rows, unchanged or cast."""
    first = refs[0]
    shape = first.shape
    if len(refs) > 1:
        shape = (sum(ref.shape[0] for ref in refs), *first.shape[1:])
    joined = Bytes(refs)
    if wanted is None or first.dtype == wanted:
        return PlannedTensor(first.dtype, shape, joined)
    return PlannedTensor(wanted, shape, Blend(((joined, 1.0),)))


def _renamed(checkpoint: Checkpoint, layout: Layout, wanted: str | None) -> dict[str, PlannedTensor]:
    """The checkpoint's tensors under the names of another layout, joined as this layout joins them."""
    assert layout.names is not None, layout
    where = checkpoint.ref
    tensors: dict[str, PlannedTensor] = {}
    used: set[str] = set()
    for joined, names in layout.names(checkpoint).items():
        refs = tuple(checkpoint.tensors[name] for name in names)
        if len({ref.dtype for ref in refs}) > 1:
            raise InputError(
                f"{where}: {', '.join(names)} share the {layout.name} tensor {joined} and have different dtypes",
                hint="convert with --dtype",
            )
        tensors[joined] = _converted(refs, wanted)
        used.update(names)
    left = [name for name in checkpoint.tensors if name not in used]
    if left:
        raise InputError(f"{where}: the {layout.name} layout has no place for {left[0]}")
    return tensors


def _warnings(checkpoint: Checkpoint, wanted: str | None) -> list[str]:
    warnings = []
    if dropped := checkpoint.metadata.get("sanactl.dropped"):
        warnings.append(f"{checkpoint.ref}: left out, because diffusers has no place for them: {dropped}")
    if wanted == "BF16" and checkpoint.config.qk_norm is None:
        warnings += _bf16_trap(checkpoint)
    if wanted == "F16":
        warnings.append(
            "fp16 holds nothing above 65,504: fine-tuning SANA in it gives NaN (NVlabs/Sana issue 65)"
        )
    return warnings


def _bf16_trap(checkpoint: Checkpoint) -> list[str]:
    """Warn of SANA-1.0 weights that were trained in fp16, because they give broken images in bf16."""
    broken = "such weights give broken images in bf16 (NVlabs/Sana issue 47); use a BF16 release"
    dtype = next(iter(checkpoint.dtypes))
    if dtype == "F16":
        return [f"{checkpoint.ref} was trained in fp16 without QK norms (SANA-1.0): {broken}"]
    # The fp16 releases also come as fp32 files. Their tensors do not show how they were trained, but their names do.
    known = "BF16" in checkpoint.ref.upper() or any(e.get("command") == "init" for e in checkpoint.lineage)
    if dtype == "BF16" or known:
        return []
    kind = DTYPES[dtype].short or dtype
    return [
        f"{checkpoint.ref} has no QK norms (SANA-1.0), and its {kind} file does not show whether it was trained in fp16:"
        f" {broken}"
    ]
