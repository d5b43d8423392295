"""`--compile`: images that are the eager ones but for rounding, from a compiler that runs once, and nothing without one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sanactl.errors import SanactlError
from sanactl.model.compiled import check_compiler
from tests.program import Program

PROMPTS = "a photo of a red circle\na sketch of a star\na photo of two blue squares\n"
DRAW = ("sample", "tiny.st", "-p", "p.txt", "-n", "2", "--steps", "3")
COMPILED = (*DRAW, "--compile", "-o", "compiled")
# Compiled sums are in another order. Pixels then differ by one at the edge of rounding, and hardly more.
FEW_STEPS_APART = 3


def compiler() -> str | None:
    try:
        check_compiler(torch.device("cpu"))
    except SanactlError:
        return None
    return os.environ.get("CXX", "g++")


def run(arguments: Sequence[str], **variables: str) -> subprocess.CompletedProcess[str]:
    """The program as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "sanactl", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=1500,
    )


def pixels(folder: str) -> dict[str, np.ndarray]:
    return {
        str(path.relative_to(folder)): np.asarray(Image.open(path)).astype(int)
        for path in sorted(Path(folder).glob("*/samples/*.png"))
    }


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables of a folder for what is compiled, and of a compiler that notes each call."""
    folder = tmp_path_factory.mktemp("kernels")
    real = compiler()
    if real is None:
        pytest.skip("no C++ compiler")
    noting = folder / "noting"
    noting.write_text(f'#!/bin/sh\necho "$@" >> {folder}/calls\nexec {real} "$@"\n')
    noting.chmod(0o755)
    return {
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "cache"),
        "CXX": str(noting),
        "CALLS": str(folder / "calls"),
    }


def calls(kernels: dict[str, str]) -> list[str]:
    """Calls that compiled something; others ask for the compiler's version."""
    path = Path(kernels["CALLS"])
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return [line for line in lines if ".cpp" in line]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_compiled_images_are_the_eager_ones(place: Path, kernels: dict[str, str], sanactl: Program) -> None:
    (place / "p.txt").write_text(PROMPTS)
    sanactl(*DRAW, "-o", "eager")
    eager = pixels("eager")
    first = run(COMPILED, **kernels)
    assert first.returncode == 0, first.stderr
    assert "the first batch compiles the transformer" in first.stderr
    found = pixels("compiled")
    assert found.keys() == eager.keys() and len(found) == 6
    assert all(np.abs(found[name] - eager[name]).max() <= FEW_STEPS_APART for name in eager)
    assert calls(kernels) and any(Path(kernels["TORCHINDUCTOR_CACHE_DIR"]).iterdir())
    # A second process draws what is missing, to the byte, and compiles nothing.
    whole = {name: (place / "compiled" / name).read_bytes() for name in found}
    for name in list(whole)[::2]:
        (place / "compiled" / name).unlink()
    second = run(COMPILED, **kernels)
    assert second.returncode == 0, second.stderr
    assert "3 of 6 images were there already" in second.stderr
    assert {name: (place / "compiled" / name).read_bytes() for name in found} == whole
    assert not calls(kernels)
    # Whether it is compiled is a setting of an image: folders hold images of one kind.
    assert "compile true, not false" in sanactl.fails(*DRAW, "-o", "compiled", code=2)
    assert "compile false, not true" in sanactl.fails(*DRAW, "--compile", "-o", "eager", code=2)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_scale_compiles_too(place: Path, kernels: dict[str, str]) -> None:
    command = ("scale", "tiny.st", "--prompt", "a photo of a red circle", "--max", "4", "--round", "2")
    done = run((*command, "--steps", "3", "--compile", "--fixed-batch", "2", "-o", "best"), **kernels)
    assert done.returncode == 0, done.stderr
    assert "the first batch compiles" in done.stderr and done.stdout.count('"kind": "image"') >= 1
    assert len(pixels("best")) >= 2


def test_without_a_compiler_there_is_one_line(place: Path, tmp_path: Path) -> None:
    """With no programs at all, and with a CXX that is not there."""
    (place / "p.txt").write_text(PROMPTS)
    empty = tmp_path / "empty"
    empty.mkdir()
    scale = ("scale", "tiny.st", "--prompt", "a star", "--compile")
    for command, variables in (
        (COMPILED, {"PATH": str(empty), "CXX": "g++"}),
        (scale, {"CXX": "no-such-compiler"}),
    ):
        done = run(command, **variables)
        lines = [line for line in done.stderr.splitlines() if not line.startswith("sanactl: using")]
        assert done.returncode == 2 and done.stdout == ""
        assert len(lines) == 1 and "--compile needs a C++ compiler" in lines[0], done.stderr
        assert "install g++" in lines[0]
    assert {path.name for path in place.iterdir()} <= {"tiny.st", "p.txt", "empty", ".sanactl"}
    shutil.rmtree(empty)
