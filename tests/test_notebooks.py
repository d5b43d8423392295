"""The notebooks of docs/notebooks: small, without what changes from run to run, with outputs, and they run."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("nbclient")

ROOT = Path(__file__).parent.parent
_SPEC = importlib.util.spec_from_file_location("run_notebooks", ROOT / "docs/run_notebooks.py")
assert _SPEC is not None and _SPEC.loader is not None
running: Any = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(running)
each = pytest.mark.parametrize("path", running.NOTEBOOKS, ids=lambda p: p.stem)


def kinds(notebook: Any) -> list[list[list[str]]]:
    """What each cell shows: for each output, "stream" or its types of data."""
    return [
        [sorted(output.get("data", {})) or [output.output_type] for output in cell.get("outputs", ())]
        for cell in notebook.cells
    ]


@each
def test_a_notebook_is_kept_as_its_run_wrote_it(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    kept = nbformat.from_dict(json.loads(text))
    nbformat.validate(kept)
    assert len(text.encode()) < 300_000
    assert nbformat.writes(running.stripped(nbformat.reads(text, as_version=4))).strip() == text.strip()
    assert any("image/png" in shown for cell in kinds(kept) for shown in cell)
    assert all(shown for cell, shown in zip(kept.cells, kinds(kept), strict=True) if cell.cell_type == "code")
    assert "/tmp/" not in text


@pytest.mark.slow
@each
def test_a_notebook_runs_and_shows_what_it_keeps(path: Path, tmp_path: Path) -> None:
    ran = running.run(path, tmp_path)
    kept = nbformat.read(path, as_version=4)
    assert kinds(ran) == kinds(kept)
    assert [cell.source for cell in ran.cells] == [cell.source for cell in kept.cells]
    # What is exact on every machine: text without measured values.
    for there, here in zip(kept.cells[:4], ran.cells[:4], strict=True):
        assert there.get("outputs") == here.get("outputs")
