"""What tests of guards share, and those of a server that writes prompts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sanactl.files import http
from tests.prompts import twelve_prompts as twelve
from tests.prompts.llm_server import LlmServer, running
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


@pytest.fixture
def twelve_prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder with twelve prompts; a failed request is repeated at once."""
    monkeypatch.setattr(http, "FIRST_WAIT", 0.001)
    monkeypatch.chdir(tmp_path)
    Path("p.txt").write_text("".join(f"{p}\n" for p in twelve.PROMPTS))


@pytest.fixture
def server() -> Iterator[LlmServer]:
    with running() as server:
        yield server
