"""The Triton kernels: their results in Triton's interpreter, and that they compile for GPUs. No GPU is needed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")


def run(program: list[str], **env: str) -> None:
    """Run Python in a process of its own: the interpreter is chosen when triton is first imported."""
    done = subprocess.run(
        [sys.executable, *program],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


def test_kernels_agree_with_their_twin() -> None:
    cases = str(Path(__file__).with_name("interpreted_kernels.py"))
    run(["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", cases], TRITON_INTERPRET="1")


@pytest.mark.parametrize("capability", [80, 90])
def test_kernels_compile_for_gpus(capability: int) -> None:
    run([str(Path(__file__).with_name("compiled_kernels.py")), str(capability)], TRITON_INTERPRET="0")
