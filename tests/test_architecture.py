"""The house: who may import whom, and which commands stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import sanactl
from sanactl.cli.app import COMMANDS, main

ROOT = Path(sanactl.__file__).parent
# A layer may import those below it; layers of one height do not import each other.
HEIGHT = {
    "errors": 0,
    "files": 1,
    "records": 2,
    "checkpoint": 3,
    "surgery": 4,
    "optim": 4,
    "shapes": 4,
    "model": 5,
    "data": 6,
    "scoring": 6,
    "judging": 7,
    "sampling": 8,
    "training": 8,
    "report": 9,
    "world": 9,
    "bench": 10,
    "cli": 11,
}


def imports(file: Path) -> Iterator[tuple[int, str]]:
    """(line, layer) of everything of sanactl that a module imports, inside functions and type checks, too."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("sanactl"):
            names = (
                [f"{node.module}.{alias.name}" for alias in node.names]
                if node.module == "sanactl"
                else [node.module]
            )
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.startswith("sanactl.")]
        for name in names:
            layer = name.split(".")[1] if "." in name else ""
            if layer in HEIGHT:
                yield node.lineno, layer


@pytest.mark.parametrize("layer", HEIGHT)
def test_imports_point_down(layer: str) -> None:
    files = [ROOT / "errors.py"] if layer == "errors" else sorted((ROOT / layer).rglob("*.py"))
    assert files
    wrong = [
        f"{file.relative_to(ROOT)}:{line} imports {other}"
        for file in files
        for line, other in imports(file)
        if other != layer and HEIGHT[other] >= HEIGHT[layer]
    ]
    assert not wrong


def test_every_module_has_a_layer() -> None:
    loose = {p.name for p in ROOT.iterdir() if p.suffix == ".py"} - {
        "__init__.py",
        "__main__.py",
        "errors.py",
    }
    folders = {p.name for p in ROOT.iterdir() if p.is_dir() and p.name != "__pycache__"} - set(HEIGHT)
    assert not loose
    assert not folders


LIGHT = """
import sys
from sanactl.cli.app import main
code = main(sys.argv[1:])
heavy = sorted({"torch", "transformers", "diffusers", "datasets"} & set(sys.modules))
print(code, *heavy, file=sys.stderr)
"""


def test_surgery_imports_no_model_library(tmp_path: Path) -> None:
    assert main(["init", "shapes", "-o", str(tmp_path / "base.st")]) == 0
    runs = [
        ["--help"],
        ["inspect", "base.st"],
        ["grow", "base.st", "--to", "12"],
        ["prune", "base-d12.st", "--blocks", "0-3"],
        ["convert", "base.st", "-o", "folder"],
        ["log"],
    ]
    for arguments in runs:
        done = subprocess.run(
            [sys.executable, "-c", LIGHT, *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        assert done.stderr.splitlines()[-1] == "0", (arguments, done.stderr)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "Usage" in shown
    if command not in ("eval", "prompts", "make-shapes"):  # groups: their subcommands have the examples
        words = " ".join(shown.replace("│", " ").split())
        assert words.count(f"sanactl {command}") > 1  # the usage line is one
