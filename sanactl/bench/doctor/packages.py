"""Versions: Python, what sanactl needs, and what single options need."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement
from packaging.version import InvalidVersion, Version

from sanactl.bench.doctor.finding import Finding, Place, ok, warning, wrong
from sanactl.version import __version__

__all__ = ["OPTIONAL", "check_versions"]

# What decides results and speed, and is named on a terminal. The record has all versions.
NAMED = ("torch", "triton", "transformers", "diffusers", "accelerate", "bitsandbytes", "numpy")
# Packages that single options need, and for what.
OPTIONAL = {
    "peft": "finetune --lora, train-judge --lora",
    "tensorboard": "finetune --tracker tensorboard",
    "wandb": "finetune --tracker wandb",
    "trackio": "finetune --tracker trackio",
    "torchao": "bench optim's row of torchao",
}


def check_versions(place: Place) -> Iterator[Finding]:
    """Versions against what sanactl's own metadata ask for."""
    del place
    try:
        needed = [Requirement(line) for line in requires("sanactl") or ()]
    except PackageNotFoundError:
        needed = []
        yield warning(
            "sanactl",
            f"sanactl {__version__} runs from its folder and is not installed, so the least versions are not known",
        )
    needed = [one for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
    for requirement in needed:
        if (fault := _fault(requirement)) is not None:
            yield wrong(
                requirement.name, f"{fault}; pip install -U '{requirement.name}{requirement.specifier}'"
            )
    found = {name: _version(name) for name in dict.fromkeys((*NAMED, *(one.name for one in needed)))}
    named = ", ".join(f"{name} {found[name]}" for name in NAMED if found[name] is not None)
    python = platform.python_version()
    yield ok(
        "packages",
        f"sanactl {__version__}, Python {python}, {named}",
        versions={"sanactl": __version__, "python": python, **found},
    )
    optional = {name: _version(name) for name in OPTIONAL}
    missing = [f"{name} ({OPTIONAL[name]})" for name, there in optional.items() if there is None]
    there = [f"{name} {number}" for name, number in optional.items() if number is not None]
    parts = [", ".join(there), f"not installed: {', '.join(missing)}" if missing else ""]
    yield ok("optional packages", "; ".join(filter(None, parts)), versions=optional)


def _fault(requirement: Requirement) -> str | None:
    """What is wrong with a package that is needed, or None."""
    there = _version(requirement.name)
    if there is None:
        return f"{requirement.name} is not installed, and sanactl needs it"
    try:
        # A build from source (2.12.0a0+git...) is newer than the release before it.
        fits = requirement.specifier.contains(Version(there), prereleases=True)
    except InvalidVersion:
        return None
    return (
        None
        if fits
        else f"{requirement.name} {there} is installed, and sanactl needs {requirement.specifier}"
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
