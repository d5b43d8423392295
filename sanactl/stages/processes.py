"""The processes of one run under `torchrun` or `accelerate launch`; one process where there is neither."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from accelerate import PartialState

__all__ = ["open_processes"]

# A process may have to wait for the slowest as long as a night's sampling differs between two machines.
_PATIENCE = timedelta(hours=12)


def open_processes() -> PartialState:
    """Joins this run's processes: who they are (`process_index`, `num_processes`, `device`) and how they wait."""
    from accelerate import PartialState

    return PartialState(timeout=_PATIENCE)
