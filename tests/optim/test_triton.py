"""The Triton kernels: their results in Triton's interpreter, and that they compile for GPUs that are not here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sanactl.errors import UsageError
from sanactl.optim import masked

pytest.importorskip("triton")

HERE = Path(__file__).parent
FILES = [str(HERE / f"interpreted_{name}.py") for name in ("kernels", "offsets")]
CASES = ["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *FILES]


def run(program: list[str], interpret: str) -> str:
    """Run Python in a process of its own: triton reads TRITON_INTERPRET when it is first imported."""
    done = subprocess.run(
        [sys.executable, *program],
        env={**os.environ, "TRITON_INTERPRET": interpret},
        capture_output=True,
        text=True,
        cwd=HERE.parents[1],
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def test_the_device_chooses_and_the_environment_can_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SANACTL_NO_TRITON", raising=False)
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    found = masked.kernels_for(gpu)
    assert found is not None
    assert found.__name__ == "sanactl.optim.triton_step"
    assert masked.kernels_for(cpu) is None
    monkeypatch.setenv("SANACTL_NO_TRITON", "1")
    assert masked.kernels_for(gpu) is None
    monkeypatch.delenv("SANACTL_NO_TRITON")
    monkeypatch.setattr(masked, "_triton_step", lambda: None)  # triton is not installed
    assert masked.kernels_for(gpu) is None


@pytest.mark.parametrize(
    "error", [RuntimeError("Failed to find C compiler.\nSet CC"), FileNotFoundError("no such file: gcc")]
)
def test_a_machine_where_triton_cannot_start_is_named(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Triton builds its driver with a C compiler, which is not on every machine with a GPU."""
    from sanactl.optim import triton_step

    class Driver:
        @property
        def active(self) -> None:
            raise error

    monkeypatch.setattr(triton_step.triton.runtime, "driver", Driver())
    with pytest.raises(UsageError) as caught:
        triton_step.check_driver()
    assert (
        caught.value.message == f"Triton cannot start kernels on this machine: {str(error).splitlines()[0]}"
    )
    assert "SANACTL_NO_TRITON=1" in str(caught.value.hint)


@pytest.mark.timeout(900)
def test_kernels_agree_with_their_twin() -> None:
    run(CASES, interpret="1")


@pytest.mark.gpu
def test_kernels_agree_with_their_twin_on_a_gpu(gpu: torch.device) -> None:
    if gpu.type == "cpu":
        pytest.skip("test_kernels_agree_with_their_twin is that")
    run(CASES, interpret="0")


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("capability", "schemes"),
    [
        ("90", ("zero",)),
        pytest.param("90", ("fp32", "linear", "dynamic"), marks=pytest.mark.slow),
        pytest.param("80", ("fp32", "linear", "zero", "dynamic"), marks=pytest.mark.slow),
    ],
)
def test_kernels_compile_for_gpus(capability: str, schemes: tuple[str, ...]) -> None:
    """And none keeps registers in memory or needs so many that few warps run at a time. Matrices are read widely."""
    rows = run([str(HERE / "compiled_kernels.py"), capability, *schemes], interpret="0").splitlines()
    assert len(rows) >= 15
    for row in rows:
        name, *_, registers, stack, wide = row.split()
        assert int(stack) == 0, row
        assert int(registers) <= (144 if name == "residual_kernel" else 64), row
        assert int(wide) >= {"square_kernel": 1, "residual_kernel": 1, "apply_kernel": 6}.get(name, 0), row
