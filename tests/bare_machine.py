"""A machine that has some packages and nothing else, as the folder of links that its Python looks into."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

__all__ = ["bare_python"]


def bare_python(folder: Path, packages: Iterable[str]) -> Path:
    """A program in the folder that is Python with these packages, and what they require."""
    site = folder / "site"
    site.mkdir()
    for found in _required(packages):
        for top in {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
            target = site / top
            if not target.exists():
                target.symlink_to(Path(str(found.locate_file(top))))
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nexport PYTHONPATH="$PYTHONPATH:{site}"\nexec {sys.executable} -S "$@"\n')
    python.chmod(0o755)
    return python


def _required(packages: Iterable[str]) -> Iterator[Distribution]:
    """The packages, and what they require without extras; those that are not installed are left out."""
    seen, open_ = set[str](), list(packages)
    while open_:
        name = open_.pop().lower().replace("_", "-")
        if name in seen:
            continue
        seen.add(name)
        try:
            found = distribution(name)
        except PackageNotFoundError:
            continue
        yield found
        asked = [Requirement(line) for line in found.requires or ()]
        open_ += [one.name for one in asked if one.marker is None or one.marker.evaluate({"extra": ""})]
