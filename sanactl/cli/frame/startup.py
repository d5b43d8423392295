"""A fast start of the program: options are read without a validation library, and the list of commands is plain text.

typer checks each option by a pydantic validator and draws help with rich's Markdown; importing those takes longer than
all the rest of `sanactl inspect`, and 10 MB. In unusual cases typer still does both.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

__all__ = ["commands_help", "lighten"]

# Columns; help is never drawn narrower, and a narrower terminal breaks its lines.
NARROWEST = 24

_BOLD, _CYAN, _DIM, _YELLOW, _PLAIN = "\033[1m", "\033[1;36m", "\033[2m", "\033[33m", "\033[0m"


def lighten(command: Any) -> Any:
    """Make the options of a typer command and its subcommands read plain values themselves; returns the command.

    Text, whole numbers, numbers and unchecked paths are read here. typer reads everything else, including wrong values,
    so its messages are unchanged. Help does not show Python types. With an incompatible version of typer, this changes
    nothing.
    """
    listed = command.get_params

    def get_params(ctx: Any) -> list[Any]:
        params = listed(ctx)  # --help among them, which is made here
        for param in params:
            if getattr(param, "_runtime_param", param) is None and hasattr(param, "type_descriptor"):
                param._runtime_param = _Plain(param)
            _plain_types(param)
        return params

    command.get_params = get_params
    for inner in getattr(command, "commands", {}).values():
        lighten(inner)
    return command


def _plain_types(param: Any) -> None:
    """Remove `<bool>`, `<str>` and very large limits from the help of an option or argument."""
    if getattr(param, "is_flag", False) or getattr(param, "param_type_name", "") == "argument":
        param.display_type_rich = lambda ctx: None
    elif getattr(param, "metavar", "") is None and getattr(param, "param_type_name", "") == "option":
        param.metavar = "TEXT"
    if (getattr(param, "max", None) or 0) > 2**31:  # of --seed: its text says it
        param._get_number_range_help_str = lambda: None


class _Plain:
    """Replaces typer's own reader of an option's value."""

    def __init__(self, param: Any) -> None:
        self._param = param

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """The value as the command's function wants it."""
        single = not param.multiple and param.nargs == 1
        if single and value is None:
            return None
        if single:
            read = _read(value, param.type_descriptor)
            if read is not None:
                return read
        self._param._runtime_param = None  # typer makes its own and keeps it
        return self._param.get_runtime_param().coerce(value, param=param, ctx=ctx)


def _read(value: Any, descriptor: Any) -> Any:
    """A plain value, or None if typer must read it."""
    kind, info = descriptor.annotation, descriptor.parameter_info
    if info.parser is not None or getattr(info, "click_type", None) is not None:
        return None
    if kind is str and isinstance(value, str):
        return value
    if kind is Path and isinstance(value, str | Path):
        checked = info.exists or info.resolve_path or info.writable or info.path_type
        return None if checked or not os.fspath(value) else Path(value)
    if kind not in (int, float) or isinstance(value, bool):
        return None
    if isinstance(value, str):
        if not re.fullmatch(r"-?[0-9]{1,15}" if kind is int else r"-?[0-9]{1,15}(\.[0-9]{1,15})?", value):
            return None
        value = kind(value)
    low, high = info.min, info.max
    inside = (low is None or value >= low) and (high is None or value <= high)
    return kind(value) if inside and isinstance(value, int | float) and kind(value) == value else None


def commands_help(
    program: str, about: str, options: Iterable[tuple[str, str]], panels: dict[str, list[tuple[str, str]]]
) -> str:
    """The program's own `--help`.

    Args:
        program: its name.
        about: paragraphs, with [bold]...[/bold] as rich writes it.
        options: (names, help).
        panels: title to (command, help), in order.
    """
    colored = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    width = max(NARROWEST, min(shutil.get_terminal_size((100, 24)).columns, 110))

    def paint(text: str, style: str) -> str:
        return f"{style}{text}{_PLAIN}" if colored else text

    lines = ["", f" {paint('Usage:', _YELLOW)} {paint(f'{program} [OPTIONS] COMMAND [ARGS]...', _BOLD)}", ""]
    for paragraph in textwrap.dedent(about).strip().split("\n\n"):
        text = " ".join(paragraph.split())
        for line in textwrap.wrap(text, width - 2, break_long_words=False, break_on_hyphens=False):
            bold = re.sub(r"\[bold\](.*?)\[/bold\]", lambda found: paint(found[1], _BOLD), line)
            lines.append(" " + re.sub(r"\[/?bold\]", "", bold))
        lines.append("")
    for title, rows in {"Options": list(options), **panels}.items():
        lines += _panel(title, rows, width, paint)
    return "\n".join(lines)


def _panel(title: str, rows: list[tuple[str, str]], width: int, paint: Any) -> list[str]:
    """A framed list of names and descriptions; in a narrow terminal without a frame, and each name on its own line."""
    names = max(len(name) for name, _ in rows)
    room = width - names - 7
    if room < 20:
        lines = [paint(f"{title}:", _BOLD)]
        for name, text in rows:
            lines.append(f" {paint(name, _CYAN)}")
            lines += (f"   {part}" for part in textwrap.wrap(text, width - 3))
        return [*lines, ""]
    lines = [paint(f"╭─ {title} {'─' * (width - len(title) - 5)}╮", _DIM)]
    for name, text in rows:
        for number, part in enumerate(textwrap.wrap(text, room) or [""]):
            head = (name if number == 0 else "").ljust(names)
            fill = " " * (width - names - len(part) - 6)
            lines.append(f"{paint('│', _DIM)} {paint(head, _CYAN)}  {part}{fill} {paint('│', _DIM)}")
    return [*lines, paint(f"╰{'─' * (width - 2)}╯", _DIM)]
