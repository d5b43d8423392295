"""The options that metrics of questions share, and what they do with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sanactl.errors import UsageError
from sanactl.scoring.metrics.protocol import DEVICE, DTYPE, Option
from sanactl.scoring.questions.protocol import Answerer

__all__ = ["ALLOW_MISSING", "ANSWERING", "LARGEST", "answers_file", "check_whole", "facts_of", "table_facts"]

# Who answers, where, and where answers are kept.
ANSWERING = (
    Option(
        "vqa",
        "What answers the questions: a folder or Hub id of a vision-language or VQA model, http://HOST:PORT/v1#MODEL, "
        "nvila:PATH, mplug:FILE (answers of the official script), or shapes for the built-in world. Default: none, it is needed.",
        short="-m",
    ),
    Option("vqa_options", "Further options of the model: KEY=VALUE,KEY=VALUE. Default: none."),
    DEVICE,
    DTYPE,
    Option(
        "batch_size",
        "Number of questions that the model gets at once; they are of one image. Default: 16.",
        type=int,
        short="-b",
        least=1,
    ),
)
ALLOW_MISSING = Option("allow_missing", "Score what is there where images are missing.", False, type=bool)


# Pixels a side of an image in a grid.
LARGEST = 8192


def check_whole(name: str, value: int | None, most: int | None = None) -> int | None:
    """`value` if it is a whole number from 1, or None.

    Raises:
        UsageError: it is less, or above `most`.
    """
    if value is not None and (value < 1 or (most is not None and value > most)):
        limits = f"from 1 to {most:,}" if most is not None else "of at least 1"
        raise UsageError(f"{name.replace('_', ' ')} is {value:,}", hint=f"it takes a whole number {limits}")
    return value


def answers_file(answers: str | None, default: str, answerer: Answerer) -> Path | None:
    """Where answers are kept: the option's file, else `default` for a model; None for `off` and for a program.

    Raises:
        UsageError: the option is empty.
    """
    if answers is None:
        return Path(default) if answerer.identity.get("model") else None
    if not answers:
        raise UsageError("--answers is empty", hint="it takes a file, or off")
    return None if answers == "off" else Path(answers)


def table_facts(path: Path | None, prompts: int, of: int) -> dict[str, Any]:
    """The fields of a score that say which questions it is of: `benchmark`, in words, and `questions_digest`.

    Args:
        path: the file of questions; None where the image records had them.
        prompts: how many prompts were scored.
        of: how many the file has.
    """
    if path is None:
        return {}
    from sanactl.files.content import files_digest

    many = f"the {of:,} prompts" if prompts == of else f"{prompts:,} of the {of:,} prompts"
    return {"benchmark": f"{many} of {path.name}", "questions_digest": files_digest([path])}


def facts_of(answerer: Answerer) -> dict[str, Any]:
    """The fields of a score that name who answered."""
    digest = {} if answerer.digest is None else {"model_digest": answerer.digest}
    dtype = answerer.identity.get("dtype")
    return {"model": answerer.label, **digest, **({"dtype": dtype} if dtype else {})}
