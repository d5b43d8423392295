"""Finding a command's prompts: in an option, in the pipe, or in the built-in world."""

from __future__ import annotations

from collections.abc import Iterator

from sanactl.cli.frame.stdin import is_stdin, prompts_of, stdin_is_piped, stdin_prompts
from sanactl.cli.frame.streams import find_records
from sanactl.cli.frame.terminal import note
from sanactl.errors import InputError, UsageError
from sanactl.records.jsonl import is_open_already
from sanactl.records.prompt_tables import split_column
from sanactl.records.prompts import check_prompts, number_prompts
from sanactl.records.records import Record
from sanactl.sampling.inputs import builtin_prompts, given_prompts, is_prompt

__all__ = ["choose_prompts", "draft_records", "prompts_wanted", "typed_prompts"]


def prompts_wanted(prompts: str | None, checkpoint: str | None, *, images: bool = False) -> tuple[str, ...]:
    """The kinds of records to read from stdin besides a checkpoint.

    With `images`, image records are wanted, and prompts among them will be refused.

    There are none if --prompts names a file, because stdin is not read then, or if stdin is a prompt file and the
    checkpoint is an argument.
    """
    if images:
        return ("image", "prompt") if prompts is None or is_stdin(prompts) else ()
    if is_stdin(prompts and split_column(prompts)[0]) and not is_stdin(prompts):
        if checkpoint is None or is_stdin(checkpoint):
            raise UsageError(f"--prompts {prompts} reads all of stdin, so the checkpoint must be named")
        return ()
    only_prompts = is_stdin(prompts) and checkpoint is not None and not is_stdin(checkpoint)
    return ("prompt",) if (prompts is None or is_stdin(prompts)) and not only_prompts else ()


def typed_prompts(
    checkpoint: str | None, prompt: list[str] | None, prompts: str | None
) -> tuple[str | None, list[Record]]:
    """The prompts on the command line, and the checkpoint argument.

    A single argument that contains a space and is not a file is a prompt, because a Hub id has no space.

    Args:
        checkpoint: the argument.
        prompt: of --prompt.
        prompts: of --prompts.

    Raises:
        UsageError: --prompt together with --prompts, or an empty prompt.
    """
    texts = list(prompt or ())
    if checkpoint is not None and not texts and prompts is None and is_prompt(checkpoint):
        note(f"using {checkpoint!r} as a prompt; --prompt {checkpoint!r} does so in any case")
        texts, checkpoint = [checkpoint], None
    if texts and prompts is not None:
        raise UsageError("--prompt and --prompts exclude each other", hint="put all prompts into the file")
    if any(not text.strip() for text in texts):
        raise UsageError("--prompt is empty")
    return checkpoint, given_prompts(texts, "--prompt") if texts else []


def draft_records(argument: str | None, piped: list[Record]) -> tuple[Iterator[Record], str]:
    """Image records to draw again, and where they come from.

    Args:
        argument: of --prompts: a file of records, a folder of images, `-` for stdin, or None.
        piped: records from the pipe. Without argument and pipe, the journal's newest winners are taken.

    Raises:
        InputError: the file cannot be read.
        UsageError: there are none.
    """
    if is_stdin(argument) or (argument is None and stdin_is_piped()):
        return iter([r for r in piped if r["kind"] in ("image", "prompt")]), "stdin"
    return find_records(
        argument,
        ("image", "prompt") if argument is not None else ("image",),
        what="images to redraw",
        hint="sanactl sample --steps 6 | sanactl judge --keep 4 | sanactl sample --redraw",
        missing="nothing",
        prefer="judged",
    )


def choose_prompts(argument: str | None, piped: list[Record], *, default: str) -> tuple[list[Record], str]:
    """Prompt records and where they come from.

    Args:
        argument: of --prompts: a file, `-` for stdin, `shapes` for the built-in evaluation prompts, or None.
        piped: records from the pipe; its prompts are used if there is no argument.
        default: "calib" for the calibration prompts, "demo" for one evaluation prompt a task.
    """
    if is_stdin(argument):
        return (_of_pipe(piped) if piped else stdin_prompts()), "stdin"
    if argument is not None and is_stdin((named := split_column(argument))[0]):
        return stdin_prompts(named[1]), "stdin"
    if argument == "shapes":
        return builtin_prompts("shapes"), "builtin:shapes"
    if argument is not None:
        return prompts_of(argument), "stdin" if is_open_already(argument) else argument
    if any(r["kind"] == "prompt" for r in piped):
        return _of_pipe(piped), "stdin"
    if default == "calib":
        note("using the built-in world's 100 calibration prompts (--prompts names others)")
        return builtin_prompts("calib"), "builtin:shapes calib.txt"
    note("using one prompt of each of the built-in world's tasks (--prompts names others)")
    return builtin_prompts("demo"), "builtin:shapes"


def _of_pipe(piped: list[Record]) -> list[Record]:
    found = [r for r in piped if r["kind"] == "prompt"]
    if not found:
        raise InputError("stdin brought no prompt record")
    check_prompts(found, "stdin")
    return number_prompts(found)
