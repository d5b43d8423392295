"""A recipe, run in the environment of the tests."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

RECIPES = Path(__file__).parents[2] / "recipes"


def run(name: str, folder: Path, settings: Mapping[str, str]) -> str:
    """Runs a recipe that must succeed; what it said on stderr."""
    return run_both(name, folder, settings)[1]


def run_both(name: str, folder: Path, settings: Mapping[str, str]) -> tuple[str, str]:
    """Runs a recipe that must succeed, from the folder above `folder`; its stdout and stderr."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, **settings, "SANACTL_VENV": "active", "OMP_NUM_THREADS": "1", "PATH": path}
    done = subprocess.run(
        [str(RECIPES / name), str(folder)],
        cwd=folder.parent,
        env=environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr
