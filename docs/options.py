"""Writes docs/options.md, a table of options for each command, from the commands' declarations.

    python docs/options.py

`tests/test_docs.py` fails where the page is not what this script writes.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from sanactl.cli.app import COMMANDS

PAGE = Path(__file__).parent / "options.md"
TOP = """# Options

All commands with their options and defaults. `docs/options.py` writes this page from the declarations. `sanactl COMMAND
--help` shows the same in a terminal. `--debug` (a traceback where something fails) and `--help` go with every command.
"""


def commands() -> Iterator[tuple[str, Any]]:
    """Each command that does something, by its words, in the order of `sanactl --help`."""
    for name, (module, _, _) in COMMANDS.items():
        command = typer.main.get_command(importlib.import_module(f"sanactl.cli.{module}").app)
        inner = getattr(command, "commands", None)
        yield from (
            ((f"{name} {sub}", single) for sub, single in inner.items()) if inner else ((name, command),)
        )


def default_of(param: Any) -> str:
    """A parameter's default as a cell: the value, or what its help says after "Default:"."""
    told = re.search(r"Default: (.+?)\.?$", param.help or "", re.S)
    if told:
        return told[1]
    if getattr(param, "is_flag", False):
        if not param.secondary_opts:
            return "off"
        return f"`{(param.opts if param.default else param.secondary_opts)[0]}`"
    return "" if param.default is None or not param.show_default else f"`{param.default}`"


def row(param: Any) -> str:
    """A parameter as a row: names and values, what it does, the default."""
    argument = param.param_type_name == "argument"
    values = param.metavar or (
        "" if getattr(param, "is_flag", False) else (param.name or "").upper() if argument else "TEXT"
    )
    names = [] if argument else [*param.opts, *param.secondary_opts]
    called = ", ".join(f"`{name}`" for name in names)
    given = " or ".join(f"`{value}`" for value in values.split("|") if value)
    what = " ".join(part for part in (called, given) if part)
    text = re.sub(r" Default: .+$", "", " ".join((param.help or "").split()))
    return f"| {what} | {text} | {default_of(param)} |".replace("|  |", "| |")


def page() -> str:
    """The whole page."""
    parts = [TOP]
    for name, command in commands():
        line, _, _ = inspect.cleandoc(command.help or "").partition("\n\n")
        rows = [row(p) for p in command.params if p.name != "help" and not getattr(p, "hidden", False)]
        head = f"## {name}\n\n{' '.join(line.split())}\n"
        parts.append(head + "\n| option | what it does | default |\n|---|---|---|\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
