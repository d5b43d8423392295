"""Comparing optimizers on the parameters of whole models: `sanactl.bench.optim`, with each row written at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from sanactl.bench import optim as bench
from sanactl.bench.contenders import CAPTURED, CONTENDERS
from sanactl.bench.rows import Rows

__all__ = ["measure_optimizers"]

# Most telling first; `adamw`, `came8bit-linear` and `-dynamic` would add no information. A captured step comes after the
# same step that is not captured, and after AdamW's, because its row compares it with these.
OPTIMIZERS = (
    "adamw-fused", "came8bit", "came", "adamw-fused-captured", "came8bit-captured", "came-captured", "came8bit-public",
    "adamw8bit-bitsandbytes", "adamw8bit-torchao", "came-pytorch",
)  # fmt: skip
ADAMW = "adamw-fused"

Row = dict[str, Any]


def measure_optimizers(
    rows: Rows,
    device: torch.device,
    model: str,
    dtype: torch.dtype,
    *,
    blocks: int | None = None,
    steps: int = 5,
) -> None:
    """Add rows to the tables "a step of an optimizer" and "a step in a CUDA graph", for all of a model's blocks.

    The second has `eager_ms`, of the same step without a graph, and `adamw_ms`, of fused AdamW in a graph. A row is added
    again when the launches are known; the last one counts.

    Args:
        model: one of `sanactl.bench.optim.MODELS`.
        dtype: of parameters and gradients.
        blocks: of the model; all of them by default.
        steps: timed, after one that makes the state.
    """
    count = bench.MODELS[model][2] if blocks is None else blocks
    written: dict[str, Row] = {}
    tables = bench.run(
        model, count, rounds=1, steps=steps, optimizers=list(OPTIMIZERS), dtype=dtype, device=device
    )
    for table in tables:
        found = {row["optimizer"]: row for row in table}
        for name, row in found.items():
            captured = CONTENDERS[name].captured
            fields = {**_subject(row), **(_captured(name, found) if captured else _ordinary(row))}
            if fields != written.get(name):
                written[name] = fields
                rows.add("a step in a CUDA graph" if captured else "a step of an optimizer", **fields)


def _subject(row: Row) -> Row:
    return {
        "model": row["model"],
        "parameters": f"{row['parameters'] / 1e6:,.0f} M {row['dtype']}",
        "optimizer": row["optimizer"].removesuffix(CAPTURED),
    }


def _ordinary(row: Row) -> Row:
    peak = row.get("peak_bytes_per_parameter")
    return {
        "ms": row.get("step_ms"),
        "copy_share": row.get("copy_share"),
        "launches": row.get("launches"),
        "state_bytes": row.get("state_bytes_per_parameter"),
        "peak_over_weights_GB": None if peak is None else round(peak * row["parameters"] / 1e9, 2),
        "fault": row.get("error"),
    }


def _captured(name: str, found: Mapping[str, Row]) -> Row:
    row = found[name]
    if "error" in row:
        return {"ms": None, "fault": row["error"]}
    return {
        "ms": row.get("step_ms"),
        "eager_ms": found.get(name.removesuffix(CAPTURED), {}).get("step_ms"),
        "adamw_ms": found.get(ADAMW + CAPTURED, {}).get("step_ms"),
        "copy_share": row.get("copy_share"),
        "launches": row.get("launches"),
        "fault": None,
    }
