"""What tests share: one thread a process, a small checkpoint with real weights, the program run in this process.

The program is imported where it is needed: tests of GPUs run where typer is not installed, too.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# Before torch is imported: results must not depend on the machine's cores, and test processes share them.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# `from tests.program import ...` is to work under `pytest` as under `python -m pytest`.
sys.path.insert(0, str(Path(__file__).parent.parent))

if TYPE_CHECKING:
    import torch

    from tests.program import Program


@pytest.fixture(autouse=True)
def _no_stdin() -> Iterator[None]:
    """A test's stdin is empty and no pipe, whatever the test runner's is."""
    before = os.dup(0)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    yield
    os.dup2(before, 0)
    os.close(before)


@pytest.fixture
def sanactl(capsys: pytest.CaptureFixture[str]) -> Program:
    """The program."""
    from tests.program import Program

    return Program(capsys)


@pytest.fixture(scope="session")
def tiny_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three blocks of the built-in base: small, and unlike random weights it draws something."""
    from sanactl.cli.app import main

    folder = tmp_path_factory.mktemp("tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["init", "shapes"]) == 0
        assert main(["prune", "base.st", "--blocks", "0,4,9", "-o", "tiny.st"]) == 0
    return folder / "tiny.st"


@pytest.fixture
def place(tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with tiny.st in it."""
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(tiny_file, tmp_path / "tiny.st")
    return tmp_path


@pytest.fixture
def gpu() -> torch.device:
    """The device of the tests that are marked `gpu`; SANACTL_TEST_DEVICE=cpu tries them where there is none."""
    import torch

    device = torch.device(os.environ.get("SANACTL_TEST_DEVICE", "cuda"))
    if device.type == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return device
