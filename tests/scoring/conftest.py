"""A VQA for the tests of `eval dpg` and `eval vqa`."""

from __future__ import annotations

from pathlib import Path

import pytest

from sanactl.scoring.questions.registry import ANSWERERS
from tests.scoring.answerers import Coins


@pytest.fixture
def coins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Coins:
    """The VQA of this name, and an empty current folder."""
    monkeypatch.chdir(tmp_path)
    one = Coins()
    monkeypatch.setitem(ANSWERERS, "coins", lambda spec, **given: one)
    return one
