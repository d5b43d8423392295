"""The inputs of `sample` and `importance` besides a checkpoint: prompts and the text encoder's instruction."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sanactl.checkpoint.builtin import asset
from sanactl.errors import InputError
from sanactl.files.regular import open_regular
from sanactl.records.prompts import check_prompts, load_prompts, number_prompts
from sanactl.records.records import Record, check_record

__all__ = ["builtin_prompts", "given_prompts", "instruction_settings", "is_prompt", "spread"]

_BUILTIN = {"shapes": "eval.jsonl", "calib": "calib.txt"}


def builtin_prompts(which: str) -> list[Record]:
    """Prompts of the built-in world.

    Args:
        which: "shapes" for the 360 evaluation prompts, "calib" for the 100 calibration prompts, "demo" for one
            evaluation prompt a task.
    """
    if which != "demo":
        return load_prompts(asset(_BUILTIN[which]))
    seen: dict[str, Record] = {}
    for record in load_prompts(asset("eval.jsonl")):
        seen.setdefault(record["tag"], record)
    return list(seen.values())


def given_prompts(prompts: Sequence[str | Mapping[str, Any]], name: str) -> list[Record]:
    """Prompt records, each with an `id`, from texts and records.

    Args:
        name: what to call them in an error.

    Raises:
        InputError: none, an empty one, one that is too long, or a record that is no prompt.
    """
    records: list[Record] = []
    for number, prompt in enumerate(prompts, 1):
        record = {"prompt": prompt.strip()} if isinstance(prompt, str) else prompt
        records.append(check_record(record, f"{name}, prompt {number}", "prompt", kinds=("prompt",)))
        if not records[-1]["prompt"].strip():
            raise InputError(f"{name}, prompt {number}: is empty")
    if not records:
        raise InputError(f"{name}: no prompts in it")
    check_prompts(records, name)
    return number_prompts(records)


def is_prompt(argument: str) -> bool:
    """Whether a text that could be a name is a prompt: it holds a space and no slash, and names nothing on disk."""
    return (
        any(c.isspace() for c in argument.strip()) and not os.path.lexists(argument) and "/" not in argument
    )


def spread(records: list[Record], limit: int | None) -> list[Record]:
    """At most `limit` of the records, evenly spread."""
    if limit is None or limit >= len(records):
        return records
    return [records[i * len(records) // limit] for i in range(limit)]


def instruction_settings(argument: str | os.PathLike[str] | None) -> dict[str, Any]:
    """The value of --instruction as keywords of `sampling_settings`.

    The file's text is put before the prompt unchanged; only one line break at its end is removed.

    Args:
        argument: "off", a text file, or None for the checkpoint's own.

    Raises:
        InputError: the file cannot be read, is empty, or is not UTF-8 text.
    """
    if argument is None:
        return {}
    if argument == "off":
        return {"complex_human_instruction": False}
    with open_regular(Path(argument), most=2**20, what="file for --instruction (or `off`)") as stream:
        data = stream.read()
    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n").removesuffix("\n")
    except UnicodeDecodeError:
        raise InputError(f"{argument}: not UTF-8 text") from None
    if not text.strip():
        raise InputError(f"{argument}: an empty instruction", hint="--instruction off leaves it out")
    return {"complex_human_instruction": True, "instruction": text}
