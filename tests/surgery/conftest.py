"""A small checkpoint to operate on."""

from __future__ import annotations

from pathlib import Path

import pytest

from sanactl.bench.synthetic import synthetic_checkpoint
from sanactl.checkpoint.open import Checkpoint, open_checkpoint


@pytest.fixture
def base(tmp_path: Path) -> Checkpoint:
    return open_checkpoint(synthetic_checkpoint(tmp_path / "base.st"))
