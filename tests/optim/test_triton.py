"""The Triton kernels: their results in Triton's interpreter, and that they compile for GPUs that are not here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

HERE = Path(__file__).parent
CASES = ["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(HERE / "interpreted_kernels.py")]


def run(program: list[str], interpret: str) -> None:
    """Run Python in a process of its own: triton reads TRITON_INTERPRET when it is first imported."""
    done = subprocess.run(
        [sys.executable, *program],
        env={**os.environ, "TRITON_INTERPRET": interpret},
        capture_output=True,
        text=True,
        cwd=HERE.parents[1],
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


@pytest.mark.timeout(900)
def test_kernels_agree_with_their_twin() -> None:
    run(CASES, interpret="1")


@pytest.mark.gpu
def test_kernels_agree_with_their_twin_on_a_gpu() -> None:
    run(CASES, interpret="0")


@pytest.mark.timeout(900)
@pytest.mark.parametrize("capability", ["80", "90"])
def test_kernels_compile_for_gpus(capability: str) -> None:
    run([str(HERE / "compiled_kernels.py"), capability], interpret="0")
