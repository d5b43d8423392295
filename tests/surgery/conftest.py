"""A small checkpoint to operate on."""

from __future__ import annotations

from pathlib import Path

import pytest

from sanactl.io.checkpoint import Checkpoint, open_checkpoint
from sanactl.surgery.bench import synthetic_checkpoint


@pytest.fixture
def base(tmp_path: Path) -> Checkpoint:
    return open_checkpoint(synthetic_checkpoint(tmp_path / "base.st"))
