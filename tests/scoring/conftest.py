"""A VQA for the tests of `eval dpg` and `eval vqa`, pictures for those of distances."""

from __future__ import annotations

from pathlib import Path

import pytest

from sanactl.scoring.questions.registry import ANSWERERS
from tests.scoring.answerers import Coins
from tests.scoring.picture_sets import write_sets


@pytest.fixture
def coins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Coins:
    """The VQA of this name, and an empty current folder."""
    monkeypatch.chdir(tmp_path)
    one = Coins()
    monkeypatch.setitem(ANSWERERS, "coins", lambda spec, **given: one)
    return one


@pytest.fixture
def sets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> list[Path]:
    """The folders drawn/ and real/ of `write_sets` in an empty current folder."""
    monkeypatch.chdir(tmp_path)
    cache = tmp_path_factory.getbasetemp() / "cache"  # a check that has passed is not made again
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    return write_sets(tmp_path)
