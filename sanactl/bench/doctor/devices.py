"""The devices of this machine, and their free memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import torch

from sanactl.bench.doctor.finding import Finding, Place, ok, raised, warning
from sanactl.bench.optim_cost import free_memory
from sanactl.files.human import human_bytes
from sanactl.model.hardware import hardware_facts

__all__ = ["check_devices"]

LITTLE = 2e9  # bytes; commands on the built-in world take up to 1.5 GB with the libraries
NVIDIA = Path("/dev/nvidiactl")  # there where the driver is loaded


def check_devices(place: Place) -> Iterator[Finding]:
    """A row for each device, and one if there is a GPU that torch cannot use."""
    for device in place.devices:
        try:
            yield _finding(device)
        except Exception as error:  # of a driver; the other devices do not depend on this one
            yield raised(str(device), error)
    if place.named is None and NVIDIA.exists() and not torch.cuda.is_available():
        build = (
            "is a build without CUDA"
            if torch.version.cuda is None
            else f"needs a driver for CUDA {torch.version.cuda}"
        )
        yield warning(
            "cuda", f"there is an NVIDIA GPU, but torch {torch.__version__} {build}: models run on the CPU"
        )


def _finding(device: torch.device) -> Finding:
    says = hardware_facts(device)["hardware"]
    total: int | None = None
    free = None if device.type == "mps" else free_memory(device)
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        total = properties.total_memory
        says += f", compute capability {properties.major}.{properties.minor}, CUDA {torch.version.cuda or torch.version.hip}"
    elif device.type == "cpu":
        total, threads = psutil.virtual_memory().total, torch.get_num_threads()
        says += f", {threads} thread{'' if threads == 1 else 's'}, {torch.backends.cpu.get_cpu_capability()}"
    if free is not None and total is not None:
        says += f", {human_bytes(free)} of {human_bytes(total)} memory free"
    facts = {"total_bytes": total, "unit": "bytes"}
    if free is not None and free < LITTLE:
        return warning(str(device), f"{says}: models may not fit", free, **facts)
    return ok(str(device), says, free, **facts)
