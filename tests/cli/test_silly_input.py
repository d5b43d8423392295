"""Every option and argument of every command that takes text, with what no file should be: one line, never a bug's.

Commands and options come from the program itself, so a new one is tried without being named here.
"""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from sanactl.cli.app import COMMANDS, main

# Enough for a command to get at the option that is tried, and little work should the value be a good one.
BASE: dict[str, list[str]] = {
    "init": ["shapes"],
    "inspect": ["tiny.st"],
    "convert": ["tiny.st", "-o", "out-folder"],
    "grow": ["tiny.st", "--to", "4"],
    "prune": ["tiny.st", "--blocks", "0"],
    "log": ["tiny.st"],
    "importance": ["tiny.st", "-p", "p.txt", "--steps", "1"],
    "guard": ["p.txt", "-m", "builtin:words"],
    "sample": ["tiny.st", "-p", "p.txt", "-n", "1", "--steps", "1"],
    "finetune": ["tiny.st", "--steps", "1", "-b", "1"],
    "encode": ["tiny.st", "--count", "1"],
    "scale": ["tiny.st", "-p", "p.txt", "--max", "1", "--keep", "1", "--steps", "1"],
    "judge": ["i.jsonl", "--model", "oracle"],
    "filter": ["i.jsonl", "--top", "1"],
    "merge": ["i.jsonl"],
    "export": ["i.jsonl"],
    "relabel": ["p.txt"],
    "rewrite": ["p.txt"],
    "eval geneval": ["i.jsonl"],
    "eval speed": ["tiny.st", "--rounds", "1", "--steps", "1"],
    "report": ["i.jsonl"],
    "train-judge": ["i.jsonl", "--steps", "0", "--warmup-steps", "0"],
    "doctor": ["--only", "disk"],
    "bench surgery": ["--tiny", "--rounds", "1"],
    "bench optim": ["--blocks", "1", "--rounds", "1", "--steps", "1"],
    "make-shapes vae": ["--steps", "1"],
    "make-shapes text": ["--steps", "1"],
    "make-shapes languages": ["--steps", "1"],
    "make-shapes detector": ["i.jsonl", "--steps", "1"],
    "make-shapes clip": ["i.jsonl", "--steps", "1"],
}
# Those that import torch and run a model, whatever they are given.
HEAVY = (
    "importance", "guard", "sample", "scale", "finetune", "encode", "judge", "train-judge", "bench", "make-shapes", "eval speed", "doctor",
)  # fmt: skip
SILLY = [
    "gone.st", "no/such/folder/x.jsonl", "folder", "folder/", "empty.st", "empty.jsonl", "garbage.st", "garbage.pth",
    "garbage.jsonl", "garbage.png", "garbage.json", "text.xyz", "/dev/null", "pipe", "", "x" * 300, "y/" * 3000, "loop",
    "tiny.st/below", "~nobody-here/x", "https://example.invalid/x.st", "file:%", "-", "\x1b[2J",
]  # fmt: skip
BUGS = ("please report", "Traceback", "--debug")


def commands() -> Iterator[tuple[str, Any]]:
    """Every command that does something, by its full name."""
    for name, (module, _, _) in COMMANDS.items():
        made = typer.main.get_command(importlib.import_module(f"sanactl.cli.{module}").app)
        inner = getattr(made, "commands", None)
        yield from ((f"{name} {sub}", one) for sub, one in inner.items()) if inner else ((name, made),)


def options() -> list[Any]:
    """(command, what is put before the value): each option that takes text or a path, and each argument."""
    found = []
    for name, command in commands():
        marks = [pytest.mark.slow] if name in HEAVY or name.split()[0] in HEAVY else []
        for param in command.params:
            kind = str(param.type_descriptor.annotation)
            if "str" in kind or "Path" in kind:
                option = max(param.opts, key=len) if param.param_type_name == "option" else ""
                found.append(pytest.param(name, option, id=f"{name} {option or param.name}", marks=marks))
    return found


@pytest.fixture
def silly(place: Path) -> Path:
    """A folder with one of each."""
    record = '{"kind": "image", "path": "i.png", "prompt": "a star", "tag": "single_object"}\n'
    (place / "i.jsonl").write_text(record)
    (place / "p.txt").write_text("a photo of a star\n")
    (place / "folder").mkdir()
    for name in ("empty.st", "empty.jsonl"):
        (place / name).touch()
    for name in ("garbage.st", "garbage.pth", "garbage.jsonl", "garbage.png", "garbage.json"):
        (place / name).write_bytes(os.urandom(64) * 64 + b"\xff\xfe\n")
    (place / "text.xyz").write_text("a file of text\n")
    os.mkfifo(place / "pipe")
    (place / "loop").symlink_to("loop")
    return place


def test_the_list_of_options_is_not_empty() -> None:
    names = {option.values[0].split()[0] for option in options()}
    assert names == set(COMMANDS)
    assert len(options()) > 60


@pytest.mark.parametrize(("command", "option"), options())
def test_no_silly_value_is_a_bug(
    silly: Path, command: str, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    there = sorted(silly.iterdir())
    wrong: list[tuple[object, ...]] = []
    for value in SILLY:
        base = list(BASE.get(command, []))
        if not option:  # the argument itself, which comes first in every base
            base = base[1:] if base and not base[0].startswith("-") else base
        given = [f"{option}={value}"] if option else ["--", value]
        # click takes everything behind -- for arguments
        arguments = [*command.split(), *base, *given]
        capsys.readouterr()
        code = main(arguments)
        said = capsys.readouterr().err
        lines = said.splitlines()
        if code not in (0, 1, 2) or any(word in said for word in BUGS) or (code and not lines):
            wrong.append((given[-1][:60], code, said[-300:]))
        left = [path for path in silly.rglob("*.tmp") if path.name.startswith(".")]
        if left:
            wrong.append((given[-1][:60], left, ""))
        for path in set(silly.iterdir()) - set(there):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    assert not wrong, "\n".join(map(str, wrong))


@pytest.mark.parametrize("command", [pytest.param(name, marks=[]) for name, _ in commands()])
def test_no_silly_number_is_a_bug(silly: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Values that every number refuses, or that one may take: nothing is tried that would be long work."""
    made = dict(commands())[command]
    wrong = []
    for param in made.params:
        kind = str(param.type_descriptor.annotation)
        if param.param_type_name != "option" or not ("int" in kind or "float" in kind):
            continue
        for value in ("x", "", "1e999x", "0x10", "--1"):
            capsys.readouterr()
            code = main([*command.split(), *BASE.get(command, []), f"{max(param.opts, key=len)}={value}"])
            said = capsys.readouterr().err
            if code != 2 or any(word in said for word in BUGS):
                wrong.append((param.opts[-1], value, code, said[-300:]))
    assert not wrong, "\n".join(map(str, wrong))
