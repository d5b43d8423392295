#!/usr/bin/env python
"""Runs the notebooks of docs/notebooks in an empty folder and writes them back with their outputs.

    python docs/run_notebooks.py

Execution times, versions and cell ids that change from run to run are left out, so that a run changes outputs only.
`tests/test_notebooks.py` runs them, too. It needs nbclient and ipykernel (the extra `dev`).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def run(notebook: Path, folder: Path) -> Any:
    """The notebook with the outputs of a run in `folder`, and without what changes from run to run.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    found = nbformat.read(notebook, as_version=4)
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
    NotebookClient(found, timeout=600, resources={"metadata": {"path": str(folder)}}).execute()
    return stripped(found)


def stripped(notebook: Any) -> Any:
    """The notebook without times, versions and ids."""
    notebook.metadata = nbformat.from_dict(METADATA)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for number, cell in enumerate(notebook.cells):
        cell.metadata, cell.id = nbformat.from_dict({}), f"cell-{number:02d}"
        for output in cell.get("outputs", ()):
            output.pop("execution_count", None)
            if output.output_type == "execute_result":
                output.execution_count = None
            if "metadata" in output:
                output.metadata = nbformat.from_dict({})
        if cell.cell_type == "code":
            cell.execution_count = None
            # Libraries warn on stderr of what this machine lacks.
            cell.outputs = _joined(o for o in cell.outputs if o.get("name") != "stderr")
    return notebook


def _joined(outputs: Iterable[Any]) -> list[Any]:
    """The outputs with what was printed in one piece: a kernel sends it as time allows."""
    joined: list[Any] = []
    for output in outputs:
        if joined and output.output_type == joined[-1].output_type == "stream":
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined


if __name__ == "__main__":
    for path in NOTEBOOKS:
        with tempfile.TemporaryDirectory() as place:
            nbformat.write(run(path, Path(place)), path)
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size:,} bytes")
