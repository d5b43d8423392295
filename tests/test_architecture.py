"""The house: who may import whom, and which commands stay light."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import sanactl
from sanactl.cli.app import COMMANDS, main

ROOT = Path(sanactl.__file__).parent
# A layer may import those below it; layers of one height do not import each other.
HEIGHT = {
    "errors": 0,
    "version": 0,
    "files": 1,
    "records": 2,
    "optim": 2,
    "checkpoint": 3,
    "surgery": 4,
    "shapes": 4,
    "model": 5,
    "data": 6,
    "prompts": 6,
    "scoring": 7,
    "judging": 8,
    "sampling": 9,
    "training": 9,
    "report": 10,
    "world": 10,
    "bench": 11,
    "exporting": 11,
    "api": 12,
    "cli": 12,
}

# What the package itself does not call, and why it is there.
FOR_OTHERS = {
    "came8bit_step": "CAME-8bit on one screen: the reference that tests compare with",
    "as_dataset": "the built-in world as a datasets.Dataset, for users of the library",
    "detections_to_dicts": "detections as JSON, for users of the library",
    "load_calib_prompts": "the prompts that `importance` is measured on, for users of the library",
    "kept_blocks": "one answer of `trace_blocks`, as its tests ask for it",
    "merge_images": "the whole of what `add_image` does step by step, as its tests ask for it",
    "write_png": "one image, for users of the library; `sample` writes several at once",
    "synthetic_checkpoint": "small checkpoints for tests, written as fast as the disk takes them",
}

# `docs/draw_imports.py` draws the same for people.
_SPEC = importlib.util.spec_from_file_location("draw_imports", ROOT.parent / "docs/draw_imports.py")
assert _SPEC is not None and _SPEC.loader is not None
drawing = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(drawing)
MODULES: dict[str, Path] = drawing.modules(ROOT.parent)
# What a library calls by its name: methods of classes that others define.
CALLED_BY_LIBRARIES = {
    "format_help",  # click
    "list_commands",
    "on_broken_pipe",  # rich
    "pytest_runtest_logreport",
    "readinto",  # io.RawIOBase
    "seekable",
}


@pytest.mark.parametrize("layer", HEIGHT)
def test_imports_point_down(layer: str) -> None:
    # errors is a file, and its own folder here
    inside = {name: path for name, path in MODULES.items() if drawing.folder(name) == layer}
    assert inside
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {other}"
        for path in inside.values()
        for line, other in drawing.imports(path, MODULES)
        if HEIGHT.get(drawing.folder(other), -1) >= HEIGHT[layer] and drawing.folder(other) != layer
    ]
    assert not wrong


def test_no_files_import_each_other_in_a_circle() -> None:
    assert drawing.circles(drawing.graph(ROOT.parent)) == []
    assert drawing.circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]


def test_no_folder_holds_more_than_a_fifth_of_the_lines() -> None:
    lines: Counter[str] = Counter()
    for name, path in MODULES.items():
        lines[drawing.folder(name)] += len(path.read_text(encoding="utf-8").splitlines())
    folder, most = lines.most_common(1)[0]
    assert most <= lines.total() / 5, folder


def functions(path: Path) -> Iterator[ast.FunctionDef]:
    yield from (
        n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.FunctionDef)
    )


def is_table_of_options(function: ast.FunctionDef) -> bool:
    """A typer command, whose parameters are the command line's options."""
    return any(".command" in ast.unparse(decorator) for decorator in function.decorator_list)


def test_functions_take_at_most_eight_parameters() -> None:
    many = []
    for name, path in MODULES.items():
        if name.startswith("sanactl.optim.triton_"):  # pointers and sizes, each a parameter by Triton's rules
            continue
        for function in functions(path):
            given = function.args
            names = [a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
            if name == "sanactl.optim.came" and function.name == "__init__":  # as torch's own optimizers
                continue
            if (
                name.startswith("sanactl.api.") and function.name in sanactl.__all__
            ):  # the options of commands
                continue
            if len(set(names) - {"self", "cls"}) > 8 and not is_table_of_options(function):
                many.append(f"{path.relative_to(ROOT)}: {function.name} takes {len(names)}")
    assert not many


def test_every_function_and_class_is_used() -> None:
    """By other code of the package, not only by its own definition, its export list or a test."""
    text = {name: path.read_text(encoding="utf-8") for name, path in MODULES.items()}
    words = Counter(word for code in text.values() for word in re.findall(r"\w+", code))
    unused = []
    for name, code in text.items():
        for node in ast.walk(ast.parse(code)):
            if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name in CALLED_BY_LIBRARIES:
                continue
            if node.decorator_list or node.name.startswith("__"):
                continue
            exported = code.count(f'"{node.name}"')
            if words[node.name] - exported < 2 and node.name not in FOR_OTHERS:
                unused.append(f"{name}: {node.name}")
    assert not unused


def test_every_module_has_a_layer() -> None:
    loose = {p.name for p in ROOT.iterdir() if p.suffix == ".py"} - {
        "__init__.py",
        "__main__.py",
        "errors.py",
        "version.py",
    }
    folders = {p.name for p in ROOT.iterdir() if p.is_dir() and any(p.rglob("*.py"))} - set(HEIGHT)
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
        ["judge", "--help"],
        ["eval", "--help"],
        ["eval", "geneval", "--help"],
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
