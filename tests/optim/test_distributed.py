"""DDP and FSDP2, in two processes on the CPU: the cases are in `distributed_cases.py` and `distributed_state.py`."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch.distributed

HERE = Path(__file__).parent
FILES = [str(HERE / f"distributed_{name}.py") for name in ("cases", "state")]


@pytest.mark.timeout(600)
@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs gloo")
def test_two_processes() -> None:
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "pytest"]
    cases = ["-q", "-x", "-p", "no:cacheprovider", *FILES]
    done = subprocess.run(
        [sys.executable, *launch, *cases],
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "TRITON_INTERPRET": str(int(find_spec("triton") is not None)),
        },
        capture_output=True,
        text=True,
        cwd=HERE.parents[1],
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
