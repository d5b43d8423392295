"""What the docs and help texts say, taken apart: fenced blocks, code spans, pipes of commands, calls of sanactl."""

from __future__ import annotations

import importlib
import re
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import typer

from sanactl.cli.app import COMMANDS

FENCE = re.compile(
    r"(?P<run><!-- run -->\n\s*)?^(?P<indent> *)```(?P<lang>\w*)\n(?P<text>.*?)^(?P=indent)```$", re.M | re.S
)
INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
# Words that may stand before `sanactl` where it is still the program that runs.
BEFORE = re.compile(r"do|then|time|exec|nice|-n|\d+|[A-Z_]+=\S*")


@dataclass(frozen=True)
class Fence:
    """A fenced block: its language, its text without the fence's indent, whether it is to be run."""

    lang: str
    text: str
    run: bool


def fences(page: Path, *langs: str) -> list[Fence]:
    found = FENCE.finditer(page.read_text(encoding="utf-8"))
    blocks = [Fence(m["lang"], textwrap.dedent(m["text"]), bool(m["run"])) for m in found]
    return [b for b in blocks if b.lang in langs]


def inline(page: Path) -> list[str]:
    """The code spans of a page, in order."""
    return INLINE.findall(FENCE.sub("", page.read_text(encoding="utf-8")))


@dataclass(frozen=True)
class Stage:
    """One program of a pipe: sanactl's arguments (None for another program) and where its stdout goes."""

    words: list[str]
    arguments: list[str] | None
    into: str | None


def pipes(text: str) -> Iterator[list[Stage]]:
    """The pipes of a shell block, one for each command line."""
    # A line that ends in a pipe goes on in the next.
    for line in re.sub(r"\\\n|\|\s*\n\s*", lambda m: " | " if "|" in m[0] else " ", text).splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
        lexer.whitespace_split = True
        stages: list[Stage] = []
        words: list[str] = []
        for token in [*lexer, ";"]:
            if not set(token) <= set("|&;"):
                words.append(token)
                continue
            if words:
                stages.append(stage(words))
            words = []
            if token != "|" and stages:
                yield stages
                stages = []


def stage(words: list[str]) -> Stage:
    into = words[words.index(">") + 1] if ">" in words else None
    plain = words[: words.index(">")] if into else words
    for i, word in enumerate(plain):
        if word == "sanactl" and (plain[i - 1 : i] == ["-m"] or all(map(BEFORE.fullmatch, plain[:i]))):
            return Stage(plain, plain[i + 1 :], into)
    return Stage(plain, None, into)


@cache
def command_of(name: str) -> Any:
    return typer.main.get_command(importlib.import_module(f"sanactl.cli.{COMMANDS[name][0]}").app)


def find_command(arguments: list[str]) -> tuple[Any, list[str]]:
    """The command that arguments call, and what is left of them; raises AssertionError where there is none."""
    assert arguments[0] in COMMANDS, f"no command {arguments[0]}"
    try:
        command, rest = command_of(arguments[0]), arguments[1:]
    except ModuleNotFoundError as error:
        raise AssertionError(f"{arguments[0]} is listed and cannot be imported: {error}") from None
    while getattr(command, "commands", None) and rest and not rest[0].startswith("-"):
        assert rest[0] in command.commands, f"{arguments[0]} has no {rest[0]}"
        command, rest = command.commands[rest[0]], rest[1:]
    return command, rest


def fault(arguments: list[str], *, whole: bool) -> str | None:
    """What is wrong with a call of sanactl, or None. `whole`: as it would be typed; else names of options only."""
    if (
        not arguments
        or arguments[0] in ("--help", "--version", "--debug", "--install-completion", "...")
        or arguments[0].isupper()
    ):
        return None
    try:
        command, rest = find_command(arguments)
        if whole and "--help" not in rest:
            command.make_context(arguments[0], list(rest))
            return None
    except AssertionError as error:
        return str(error)
    except Exception as error:  # what typer's parser raises: an unknown option, a missing one, a bad value
        return f"{type(error).__name__}: {error}"
    known = {"--help", *(name for p in command.params for name in (*p.opts, *p.secondary_opts))}
    wrong = [word for word in rest if re.match(r"--?[a-z]", word) and word not in known]
    return f"{arguments[0]} has no {wrong[0]}" if wrong else None
