"""The names of outputs that the user did not name: made from the parent's and what is done to it."""

from __future__ import annotations

from sanactl.checkpoint.table import Checkpoint

__all__ = ["converted_name", "grown_name", "pruned_name"]


def grown_name(parent: Checkpoint, to: int | None, *, pipeline: bool = False) -> str:
    """`base-d60.st`; `base-qknorm.st` where only QK norms are inserted (`to` is None)."""
    return _natural_name(f"{parent.name}-qknorm" if to is None else f"{parent.name}-d{to}", pipeline)


def pruned_name(parent: Checkpoint, kept: int, *, pipeline: bool = False) -> str:
    """`base-d60-d30.st` for 30 kept blocks."""
    return _natural_name(f"{parent.name}-d{kept}", pipeline)


def converted_name(parent: Checkpoint, dtype: str | None, *, pipeline: bool = False) -> str:
    """`base.st`, or `base-bf16.st` where it is cast."""
    return _natural_name(f"{parent.name}-{dtype}" if dtype else parent.name, pipeline)


def _natural_name(stem: str, pipeline: bool) -> str:
    """STEM.st, or STEM-pipeline for a pipeline's folder."""
    return f"{stem}-pipeline" if pipeline else f"{stem}.st"
