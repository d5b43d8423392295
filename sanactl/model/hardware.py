"""What models run on, for people who compare speeds: the processor or GPU, and the versions of the libraries."""

from __future__ import annotations

import contextlib
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["hardware_facts"]


def hardware_facts(device: torch.device) -> dict[str, str]:
    """`hardware` (a name), and the versions of `torch` and `diffusers`, as facts for the journal."""
    import torch

    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"{_processor()}, {os.cpu_count()} cores" if device.type == "cpu" else device.type
    facts = {"hardware": name[:100], "torch": str(torch.__version__)}
    with contextlib.suppress(PackageNotFoundError):
        facts["diffusers"] = version("diffusers")
    return facts


def _processor() -> str:
    """The processor's name; on Linux from /proc/cpuinfo."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or "CPU"
