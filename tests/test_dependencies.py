"""What the package imports is what it says that it needs; and what it takes from typer is there."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sanactl
from sanactl.optim.table import OPTIMIZERS

ROOT = Path(sanactl.__file__).parent
PROJECT = ROOT.parent
# Needed, and not imported by name: the safetensors library reads what the model libraries load.
BEHIND_OTHERS = {"safetensors"}
# Of extras: imported only where the user asks for what they do.
OPTIONAL = {"peft", "pytest"}


def declared() -> set[str]:
    """Names of the distributions that pyproject.toml asks for, without extras."""
    text = (PROJECT / "pyproject.toml").read_text(encoding="utf-8")
    listed = re.search(r"^dependencies = \[\n(.*?)^\]", text, re.MULTILINE | re.DOTALL)
    assert listed is not None
    return {re.match(r'\s*"([A-Za-z0-9_-]+)', line)[1].lower() for line in listed[1].splitlines()}  # type: ignore[index]


def imported() -> dict[str, str]:
    """Top-level modules that are not Python's own, and a file that imports each."""
    found: dict[str, str] = {}
    for file in ROOT.rglob("*.py"):
        for line in file.read_text(encoding="utf-8").splitlines():
            if match := re.match(r"\s*(?:import|from)\s+([A-Za-z_]\w*)", line):
                found.setdefault(match[1], str(file.relative_to(ROOT)))
    # Only those that really are imports, and not lines of a docstring or of a script in a string.
    return {
        name: file
        for name, file in found.items()
        if name not in sys.stdlib_module_names and name != "sanactl" and _imports(ROOT / file, name)
    }


def _imports(file: Path, name: str) -> bool:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import) and any(alias.name.split(".")[0] == name for alias in node.names):
            return True
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == name:
            return True
    return False


def test_what_is_imported_is_declared_and_the_other_way_round() -> None:
    packages = importlib.metadata.packages_distributions()
    used = {packages.get(name, [name])[0].lower(): file for name, file in imported().items()}
    used |= {entry.package: "optim/table.py" for entry in OPTIMIZERS.values() if entry.package}
    missing = {name: file for name, file in used.items() if name not in declared() | OPTIONAL}
    assert not missing, "add them to pyproject.toml"
    assert not declared() - set(used) - BEHIND_OTHERS, "nothing imports these"


def test_pins_cover_what_is_declared() -> None:
    pins = (PROJECT / "constraints.txt").read_text(encoding="utf-8").lower()
    pinned = {line.split("==")[0].replace("_", "-") for line in pins.splitlines() if "==" in line}
    assert {name.replace("_", "-") for name in declared()} <= pinned


@pytest.mark.parametrize("arguments", [["log"], ["grow", "builtin:base", "--to", "x"], ["--help"]])
def test_options_are_read_without_a_validation_library(tmp_path: Path, arguments: list[str]) -> None:
    """`startup.lighten` takes the place of a part of typer. With a typer that has no such part it does nothing: a command
    would take twice as long to start. Where this fails, see what the new typer has in place of `_runtime_param`."""
    code = (
        "import sys; from sanactl.cli.app import main; main(sys.argv[1:]);"
        "print(*sorted({'pydantic', 'rich.markdown', 'numpy', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    heavy = done.stdout.splitlines()[-1].split() if done.stdout.splitlines() else []
    # What is wrong goes to typer, which then imports what it needs.
    assert ("pydantic" in heavy) == ("x" in arguments), done.stderr
    assert not {"torch", "rich.markdown"} & set(heavy)
