"""Messages for wrong usage: errors of typer's parser, and unknown commands."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

from sanactl.errors import UsageError

__all__ = ["no_such_command", "usage_line"]


def usage_line(error: Any, arguments: Sequence[str], commands: Iterable[str]) -> str:
    """One line for a usage error of typer; it names the option and the help to read.

    Args:
        error: of typer's family of usage errors.
        arguments: the command line, without the program's name.
        commands: names of the program's commands.
    """
    message = " ".join(error.format_message().split()).removesuffix(".")
    hint = f"see {_path(error, arguments, commands)} --help"
    possible = getattr(error, "possibilities", None)
    if possible:
        nearest = get_close_matches(error.option_name, possible, n=1, cutoff=0.0)[0]
        message, hint = error.message, f"did you mean {nearest}? {hint}"
    elif found := re.fullmatch(r"(No such command '.*')\. Did you mean '(.*)'\?", message):
        message, hint = found[1], f"did you mean {found[2]}? {hint}"
    # the parser's words for a person: "Invalid value for '-n' / '--count': Input should be a valid integer, unable to ..."
    message = re.sub(r", unable to parse .*$", "", message)
    message = message.replace("Input should be", "it should be").replace("a valid integer", "a whole number")
    message = message.replace("a valid number", "a number")
    message = re.sub(
        r"Got unexpected extra argument(?:\(s\)|s)? \((.*)\)", r"unexpected argument \1", message
    )
    message = re.sub(r"'(-?-?[\w-]+)'", r"\1", message)
    message = re.sub(r"(-\w) / (--[\w-]+)", r"\2", message)
    return f"{message[:1].lower()}{message[1:]}; {hint}"


def no_such_command(name: str, commands: Iterable[str]) -> UsageError:
    """The error for a command that does not exist, with the nearest that does."""
    known = list(commands)
    near = get_close_matches(name, known, n=1)
    near = near or [command for command in known if name.startswith(command) or command.startswith(name)][:1]
    guess = f"did you mean {near[0]}? " if near else ""
    return UsageError(f"no such command: {name}", hint=f"{guess}see sanactl --help")


def _path(error: Any, arguments: Sequence[str], commands: Iterable[str]) -> str:
    """The command that was called: "sanactl grow"."""
    context = getattr(error, "ctx", None)
    if context is not None:
        return str(context.command_path)
    known = set(commands)
    return " ".join(["sanactl", *[word for word in arguments if word in known][:1]])
