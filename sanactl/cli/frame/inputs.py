"""Prompts and images as commands take them: from an option, the pipe, or the built-in world."""

from __future__ import annotations

import os
from typing import Any

from sanactl.checkpoint.builtin import asset
from sanactl.cli.frame.streams import is_stdin, note, prompts_of, stdin_prompts
from sanactl.errors import InputError, UsageError
from sanactl.files.regular import open_regular
from sanactl.records.jsonl import is_open_already
from sanactl.records.prompts import check_prompts, load_prompts, number_prompts
from sanactl.records.records import Record

__all__ = ["choose_prompts", "instruction_settings", "prompts_wanted", "spread", "typed_prompts"]


def prompts_wanted(prompts: str | None, checkpoint: str | None) -> tuple[str, ...]:
    """The kinds to look for on stdin besides a checkpoint.

    None where --prompts names a file, which leaves stdin alone, and where stdin is the prompt file, being no more than
    that: the checkpoint is named.
    """
    only_prompts = is_stdin(prompts) and checkpoint is not None and not is_stdin(checkpoint)
    return ("prompt",) if (prompts is None or is_stdin(prompts)) and not only_prompts else ()


def spread(records: list[Record], limit: int | None) -> list[Record]:
    """At most `limit` of the records, evenly spread."""
    if limit is None or limit >= len(records):
        return records
    return [records[i * len(records) // limit] for i in range(limit)]


def typed_prompts(
    checkpoint: str | None, prompt: list[str] | None, prompts: str | None
) -> tuple[str | None, list[Record]]:
    """The prompts that stand on the command line, and the checkpoint argument.

    A lone argument with a space in it that names nothing on disk is a prompt: no Hub id has a space.

    Args:
        checkpoint: the argument.
        prompt: of --prompt.
        prompts: of --prompts.

    Raises:
        UsageError: --prompt together with --prompts, or an empty prompt.
    """
    texts = list(prompt or ())
    if checkpoint is not None and not texts and prompts is None and _is_prompt(checkpoint):
        note(f"taking {checkpoint!r} as a prompt (--prompt says so without a guess)")
        texts, checkpoint = [checkpoint], None
    if texts and prompts is not None:
        raise UsageError("--prompt and --prompts exclude each other", hint="put all prompts into the file")
    if any(not text.strip() for text in texts):
        raise UsageError("--prompt is empty")
    records: list[Record] = [{"kind": "prompt", "prompt": text.strip()} for text in texts]
    check_prompts(records, "--prompt")
    return checkpoint, number_prompts(records)


def _is_prompt(argument: str) -> bool:
    return (
        any(c.isspace() for c in argument.strip()) and not os.path.lexists(argument) and "/" not in argument
    )


def choose_prompts(argument: str | None, piped: list[Record], *, default: str) -> tuple[list[Record], str]:
    """Prompt records and where they come from.

    Args:
        argument: of --prompts: a file, `-` for stdin, `shapes` for the built-in evaluation prompts, or None.
        piped: records that the pipe brought; its prompts are used if there is no argument.
        default: "calib" for the calibration prompts, "demo" for one evaluation prompt a task.
    """
    if is_stdin(argument):
        return (_of_pipe(piped) if piped else stdin_prompts()), "stdin"
    if argument == "shapes":
        return load_prompts(asset("eval.jsonl")), "builtin:shapes"
    if argument is not None:
        return prompts_of(argument), "stdin" if is_open_already(argument) else argument
    if any(r["kind"] == "prompt" for r in piped):
        return _of_pipe(piped), "stdin"
    if default == "calib":
        note("using the built-in world's 100 calibration prompts (--prompts names others)")
        return load_prompts(asset("calib.txt")), "builtin:shapes calib.txt"
    note("using one prompt of each of the built-in world's tasks (--prompts names others)")
    seen: dict[str, Record] = {}
    for record in load_prompts(asset("eval.jsonl")):
        seen.setdefault(record["tag"], record)
    return list(seen.values()), "builtin:shapes"


def instruction_settings(argument: str | None) -> dict[str, Any]:
    """What --instruction says, as keywords of `sampling_settings`.

    The file's text stands before the prompt as it is, but for one line break at its end.

    Raises:
        InputError: the file cannot be read, is empty, or is not UTF-8 text.
    """
    if argument is None:
        return {}
    if argument == "off":
        return {"complex_human_instruction": False}
    with open_regular(argument, most=2**20, what="file for --instruction (or `off`)") as stream:
        data = stream.read()
    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n").removesuffix("\n")
    except UnicodeDecodeError:
        raise InputError(f"{argument}: not UTF-8 text") from None
    if not text.strip():
        raise InputError(f"{argument}: an empty instruction", hint="--instruction off leaves it out")
    return {"complex_human_instruction": True, "instruction": text}


def _of_pipe(piped: list[Record]) -> list[Record]:
    found = [r for r in piped if r["kind"] == "prompt"]
    if not found:
        raise InputError("stdin brought no prompt record")
    check_prompts(found, "stdin")
    return number_prompts(found)
