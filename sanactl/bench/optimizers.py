"""Comparing optimizers on the parameters of whole models: `sanactl.bench.optim`, with each row written at once."""

from __future__ import annotations

import torch

from sanactl.bench import optim as bench
from sanactl.bench.rows import Rows

__all__ = ["measure_optimizers"]

# Cheapest first; `adamw`, `came8bit-linear` and `-dynamic` would add no information.
OPTIMIZERS = (
    "adamw-fused", "came8bit", "came", "adamw8bit-bitsandbytes", "adamw8bit-torchao", "came8bit-public", "came-pytorch",
)  # fmt: skip


def measure_optimizers(
    rows: Rows,
    device: torch.device,
    model: str,
    dtype: torch.dtype,
    *,
    blocks: int | None = None,
    steps: int = 5,
) -> None:
    """Add a row for each optimizer to the table "a step of an optimizer", for all of a model's blocks.

    Args:
        model: one of `sanactl.bench.optim.MODELS`.
        dtype: of parameters and gradients.
        blocks: of the model; all of them by default.
        steps: timed, after one that makes the state.
    """
    count = bench.MODELS[model][2] if blocks is None else blocks
    seen: set[str] = set()
    tables = bench.run(
        model, count, rounds=1, steps=steps, optimizers=list(OPTIMIZERS), dtype=dtype, device=device
    )
    for table in tables:
        for row in table:
            if row["optimizer"] in seen:
                continue
            seen.add(row["optimizer"])
            size = row["parameters"]
            peak = row.get("peak_bytes_per_parameter")
            rows.add(
                "a step of an optimizer",
                model=model,
                parameters=f"{size / 1e6:,.0f} M {row['dtype']}",
                optimizer=row["optimizer"],
                ms=row.get("step_ms"),
                copy_share=row.get("copy_share"),
                launches=row.get("launches"),
                state_bytes=row.get("state_bytes_per_parameter"),
                peak_over_weights_GB=None if peak is None else round(peak * size / 1e9, 2),
                fault=row.get("error"),
            )
