"""What `relabel` and `rewrite` share: the options that name a language model, and the run itself."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from sanactl.cli.frame.options import OUTPUT
from sanactl.prompts.llm.registry import DEFAULT

if TYPE_CHECKING:
    from sanactl.prompts.failures import FailedRecords
    from sanactl.prompts.llm.protocol import LanguageModel
    from sanactl.prompts.rewrite import Task
    from sanactl.prompts.spending import Spending
    from sanactl.records.records import Record
    from sanactl.records.shards import Shard

__all__ = [
    "AllowFailed", "Asking", "Failed", "Llm", "LlmOptions", "MaxRequests", "MaxTokens", "NoCache", "Price", "PromptsArgument",
    "Tries", "run_tasks",
]  # fmt: skip

_LIMITS = "Limits"
PromptsArgument = Annotated[
    Optional[str],
    typer.Argument(
        metavar="PROMPTS",
        help="Prompts or images: a file of prompts (text or JSONL), JSONL of image records, - for stdin, shapes for "
        "the built-in evaluation prompts, or one prompt. Default: the pipe's, else built-in ones.",
        show_default=False,
    ),
]
Llm = Annotated[
    Optional[str],
    typer.Option(
        "--llm",
        metavar="MODEL",
        help="The language model: shapes (rules for prompts of the built-in world), hf:FOLDER or hf:OWNER/NAME "
        "(a chat model of transformers), or the address of a server with OpenAI's protocol and the name of its "
        f"model (http://localhost:8000/v1#MODEL). Default: {DEFAULT}.",
        show_default=False,
        autocompletion=lambda: [DEFAULT, "hf:"],
    ),
]
LlmOptions = Annotated[
    Optional[list[str]],
    typer.Option(
        "--llm-option",
        metavar="KEY=VALUE",
        help="An option of the language model's backend: temperature, answer_tokens, batch_size, concurrency, "
        "timeout, retries, key_env, extra. Give the option again for each further one. Default: none.",
        show_default=False,
    ),
]
Tries = Annotated[
    int,
    typer.Option(
        "--tries",
        min=1,
        max=100,
        metavar="INT",
        help="Number of answers that are asked for until one passes the checks.",
    ),
]
MaxRequests = Annotated[
    Optional[int],
    typer.Option(
        "--max-requests",
        min=0,
        metavar="INT",
        help="Number of answers that this run asks for at most. Default: no limit.",
        show_default=False,
        rich_help_panel=_LIMITS,
    ),
]
MaxTokens = Annotated[
    Optional[int],
    typer.Option(
        "--max-tokens",
        min=0,
        metavar="INT",
        help="Number of tokens, of messages and answers together, after which this run asks for nothing more. "
        "Default: no limit.",
        show_default=False,
        rich_help_panel=_LIMITS,
    ),
]
Price = Annotated[
    Optional[str],
    typer.Option(
        "--price",
        metavar="IN,OUT",
        help="Dollars for a million tokens of messages and of answers: the run says what it has cost. "
        "Default: no cost is shown.",
        show_default=False,
        rich_help_panel=_LIMITS,
    ),
]
Failed = Annotated[
    Optional[Path],
    typer.Option(
        "--failed",
        metavar="FILE",
        help="File for the records that have no good answer, with the reason in rewrite_error. "
        "Default: the output's name with .failed.jsonl; no file if all went well.",
        show_default=False,
        rich_help_panel=OUTPUT,
    ),
]
AllowFailed = Annotated[
    bool, typer.Option("--allow-failed", help="End with exit code 0 even if some records failed.")
]
NoCache = Annotated[
    bool,
    typer.Option(
        "--no-cache",
        help="Ask again where the answer is known from earlier runs. The new answers take their place.",
    ),
]


@dataclass(frozen=True)
class Asking:
    """The options of `relabel` and `rewrite` besides input, output and what is made of a prompt."""

    llm: str | None
    llm_options: Sequence[str] | None
    given: dict[str, Any]
    tries: int
    limits: tuple[int | None, int | None, str | None]
    no_cache: bool
    shard: Shard | None = None


def run_tasks(
    command: str,
    prompts: str | None,
    tasks: Sequence[Task],
    asking: Asking,
    *,
    output: Path | None,
    failed: Path | None,
    force: bool,
    allow_failed: bool,
) -> None:
    """Runs a command that makes something of each prompt.

    Raises:
        InputError: some records failed and `allow_failed` was not given; all outputs are written.
    """
    from contextlib import ExitStack
    from dataclasses import asdict

    from sanactl.cli.frame.run import Invocation
    from sanactl.cli.frame.stdin import first_reads_alone
    from sanactl.cli.frame.terminal import is_first_process, note
    from sanactl.errors import InputError
    from sanactl.model.processes import is_one_of_several
    from sanactl.model.sharing import leading, on_each
    from sanactl.prompts.asking import Asker
    from sanactl.prompts.failures import FailedRecords
    from sanactl.prompts.kept_answers import KeptAnswers
    from sanactl.prompts.llm.shared import SharedModel, divides, serve_model
    from sanactl.prompts.rewrite import new_prompts
    from sanactl.records.shards import Ending, Taken

    run = Invocation(command)

    def find() -> Any:
        """The first process's input and outputs; the others get only the model."""
        if not is_first_process():
            return None
        spending = _spending(asking)
        target = run.records_file(output, command, force=force, shard=asking.shard)
        aside = _failed_file(failed, target, force=run.replaces(target, force))
        stream, source = _find(prompts)
        run.progress.start(None, f"opening {asking.llm or DEFAULT}")
        return spending, target, aside, stream, source

    with first_reads_alone(), ExitStack() as stack:
        found = on_each(find)
        model = on_each(lambda: _opened(asking, tasks))
        if found is None:
            if divides(model):
                serve_model(model)
            return
        spending, target, aside, stream, source = found
        if is_one_of_several() and divides(model):
            stack.enter_context(leading())
            model = stack.enter_context(SharedModel(model))
        kept = KeptAnswers(Path.cwd(), model, ask_again=asking.no_cache)
        asker = Asker(model, kept, spending, tries=asking.tries, progress=run.progress)
        run.uses(source)
        run.progress.start(
            None, f"{'translating' if command == 'relabel' else 'rewriting'} with {model.name}"
        )
        run.progress.keeps("the answers so far are kept")
        try:
            with FailedRecords(aside, force=run.replaces(target, force)) as failures:
                every, taken = (
                    run.counted(stream, "prompts", source=source),
                    asking.shard and Taken(asking.shard),
                )
                made = new_prompts(taken.of(every) if taken else every, tasks, asker, failed=failures.add)
                if asking.shard and taken:
                    decides = {
                        "llm": model.identity,
                        "tasks": [asdict(t) for t in tasks],
                        "tries": asking.tries,
                    }
                    ending = Ending(asking.shard, command, decides, taken.whole)
                    made = ending.after(_placed(made, failures, taken.places, len(tasks)))
                first = next(made, None)
                if first is not None:  # else there is nothing to write
                    passed = run.tee(itertools.chain((first,), made), target, force=force)
                    run.emit(passed, show=_show, take_all=output is not None)
        finally:
            run.progress.close()
            if said := spending.said() if model.keeps else "":
                note(said)
    kind = "shard" if asking.shard else run.kind_of_input or "prompt"
    outputs = [(target, kind)] if first is not None else []
    run.finish(*outputs, llm=model.name)
    if failures.count:
        many = f"{failures.count:,} records" if failures.count > 1 else "1 record"
        line = f"{many} failed ({'; '.join(failures.reasons)}); see {aside}"
        if not allow_failed:
            other = "--llm MODEL also takes other prompts; " if model.name == DEFAULT else ""
            raise InputError(line, hint=f"{other}--allow-failed makes this no error")
        note(line)


def _placed(
    made: Iterator[Record], failures: FailedRecords, places: Sequence[int], tasks: int
) -> Iterator[tuple[int, Record]]:
    """New records with the places of their prompts: each task of each prompt gives one, or a failure in its place."""
    for number, record in enumerate(made):
        yield places[(number + failures.count) // tasks], record


def _spending(asking: Asking) -> Spending:
    from sanactl.prompts.spending import Limits, Spending, read_price

    requests, tokens, price = asking.limits
    return Spending(Limits(requests, tokens, read_price(price)))


def _opened(asking: Asking, tasks: Sequence[Task]) -> LanguageModel:
    """The language model, which can do these tasks.

    Raises:
        UsageError: an option is given twice or is not known, or the model cannot do a task.
        InputError: there is no such model.
    """
    from sanactl.errors import UsageError
    from sanactl.prompts.llm.registry import open_llm
    from sanactl.records.options import split_options

    options = split_options(asking.llm_options or (), "--llm-option")
    for name, value in asking.given.items():
        if value is not None and name in options:
            raise UsageError(f"the language model's {name} is given twice", hint="leave out the --llm-option")
        options[name] = value
    model = open_llm(asking.llm, **options)
    model.check([task.name for task in tasks])
    return model


def _failed_file(named: Path | None, target: Path, *, force: bool) -> Path:
    """The file of failed records: the one named, else one beside the output."""
    from sanactl.cli.frame.outputs import check_file, free_names
    from sanactl.errors import UsageError

    if named is None:
        beside = target.with_name(f"{target.name.removesuffix('.jsonl')}.failed.jsonl")
        return next(free_names(beside)) if os.path.lexists(beside) and not force else beside
    check_file(named, "records", force=force)
    if named == target:
        raise UsageError("--failed and --output name the same file")
    return named


def _find(argument: str | None) -> tuple[Iterator[Record], str]:
    """The prompt and image records, and where they come from."""
    from sanactl.cli.frame.stdin import is_stdin, prompt_stream, stdin_is_piped
    from sanactl.cli.frame.terminal import note
    from sanactl.files.paths import user_path
    from sanactl.records.jsonl import is_open_already
    from sanactl.records.prompt_tables import is_table
    from sanactl.records.prompts import numbered
    from sanactl.sampling.inputs import builtin_prompts, given_prompts, is_prompt

    kinds = ("prompt", "image")
    if argument is None or is_stdin(argument):
        if argument is not None or stdin_is_piped():
            return numbered(prompt_stream(None, kinds)), "stdin"
        note("using one prompt of each of the built-in world's tasks")
        return iter(builtin_prompts("demo")), "builtin:shapes"
    if argument == "shapes" and not os.path.exists(argument):
        return iter(builtin_prompts("shapes")), "builtin:shapes"
    if is_prompt(argument) and not is_table(argument):
        return iter(given_prompts([argument], "PROMPTS")), "the command line"
    found = numbered(prompt_stream(str(user_path(argument)), kinds))
    return found, "stdin" if is_open_already(argument) else argument


def _show(records: list[Record]) -> None:
    """On a terminal: the prompts before and after."""
    from sanactl.cli.frame.console import PlainConsole, data, show_rows

    rows = [
        (
            data(r.get("prompt_form") or r.get("prompt_style") or ""),
            data(r["prompt_original"], longest=60),
            data(r["prompt"], longest=200),
        )
        for r in records
    ]
    show_rows(PlainConsole(), ("form", "prompt", "new prompt"), rows)
