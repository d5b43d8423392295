"""What tests of guards share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.prompts.tiny_guards import PROMPTS, save_gemma2


@pytest.fixture(scope="session")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny Gemma 2 with random weights."""
    return save_gemma2(tmp_path_factory.mktemp("guards") / "gemma")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with prompts in p.txt."""
    monkeypatch.chdir(tmp_path)
    Path("p.txt").write_text("\n".join(PROMPTS), encoding="utf-8")
    return tmp_path
