"""The Triton kernels: their results in Triton's interpreter, and that they compile for GPUs that are not here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sanactl.optim import tiled, update

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


def test_the_device_chooses_and_the_environment_can_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands for a CUDA tensor here has the four things that the choice looks at."""
    monkeypatch.delenv("SANACTL_NO_TRITON", raising=False)
    dense: dict[str, Any] = {"is_contiguous": lambda: True, "numel": lambda: 6, "dtype": torch.float32}
    on_gpu: Any = SimpleNamespace(is_cuda=True, **dense)
    on_cpu: Any = SimpleNamespace(is_cuda=False, **dense)
    assert update._passes(on_gpu, on_gpu, None).__name__ == "sanactl.optim.triton_kernels"
    assert update._passes(on_cpu, on_cpu, None) is tiled
    monkeypatch.setenv("SANACTL_NO_TRITON", "1")
    assert update._passes(on_gpu, on_gpu, None) is tiled
    monkeypatch.delenv("SANACTL_NO_TRITON")
    monkeypatch.setattr(update, "_kernels", lambda: None)  # triton is not installed
    assert update._passes(on_gpu, on_gpu, None) is tiled


@pytest.mark.timeout(900)
def test_kernels_agree_with_their_twin() -> None:
    run(CASES, interpret="1")


@pytest.mark.gpu
def test_kernels_agree_with_their_twin_on_a_gpu(gpu: torch.device) -> None:
    if gpu.type == "cpu":
        pytest.skip("test_kernels_agree_with_their_twin is that")
    run(CASES, interpret="0")


@pytest.mark.timeout(900)
@pytest.mark.parametrize("capability", [pytest.param("80", marks=pytest.mark.slow), "90"])
def test_kernels_compile_for_gpus(capability: str) -> None:
    run([str(HERE / "compiled_kernels.py"), capability], interpret="0")
