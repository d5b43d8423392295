"""The checks by name, in the order in which they are made: the cheapest come first."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from sanactl.bench.doctor.finding import Finding, Place

__all__ = ["CHECKS", "Check"]


class Check(NamedTuple):
    """One check.

    Attributes:
        what: what it looks at, for people.
        source: "module:function" of the function that makes it. What it needs is imported with it.
    """

    what: str
    source: str

    def load(self) -> Callable[[Place], Iterator[Finding]]:
        """The function."""
        module, _, name = self.source.partition(":")
        function: Callable[[Place], Iterator[Finding]] = getattr(importlib.import_module(module), name)
        return function


_HERE = "sanactl.bench.doctor"
CHECKS: dict[str, Check] = {
    "versions": Check("Python and the packages", f"{_HERE}.packages:check_versions"),
    "folder": Check("what this folder's file system can do", f"{_HERE}.disk:check_folder"),
    "disk": Check("free space of this folder and of caches", f"{_HERE}.disk:check_disk"),
    "devices": Check("the devices and their free memory", f"{_HERE}.devices:check_devices"),
    "dtypes": Check("a matrix product in each dtype, against float64", f"{_HERE}.products:check_dtypes"),
    "kernels": Check("the Triton kernels, against torch", f"{_HERE}.optimizer:check_kernels"),
    "optimizer": Check("steps of CAME-8bit, against the reference", f"{_HERE}.optimizer:check_optimizer"),
    "detector": Check("the built-in detector", f"{_HERE}.models:check_detector"),
    "judge": Check("the built-in judge, on two pictures", f"{_HERE}.models:check_judge"),
    "sample": Check("images of the built-in base, against stored numbers", f"{_HERE}.sample:check_sample"),
}
