"""`sanactl.relabel` and `sanactl.rewrite`: prompts in, translated or more detailed prompts out."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union, cast

from sanactl.api.inputs import (
    DeviceLike,
    DtypeLike,
    PathLike,
    Prompts,
    as_progress,
    device_name,
    dtype_name,
)
from sanactl.api.listed import CHECKED, checked, listed
from sanactl.api.scores import writing_to
from sanactl.errors import InputError
from sanactl.files.progress import Progress

if TYPE_CHECKING:
    from sanactl.prompts.llm.protocol import LanguageModel
    from sanactl.prompts.rewrite import Task
    from sanactl.records.records import Record
    from sanactl.records.types import ImageRecord, PromptRecord

__all__ = ["iter_relabel", "iter_rewrite", "relabel", "rewrite"]


@checked
def iter_relabel(
    prompts: Prompts,
    *,
    to: str | Sequence[str] = "en,zh,en-zh,emoji",
    llm: str | LanguageModel | None = None,
    llm_options: Mapping[str, Any] | None = None,
    tries: int = 3,
    max_requests: int | None = None,
    max_tokens: int | None = None,
    price: str | None = None,
    device: DeviceLike | None = None,
    dtype: DtypeLike | None = None,
    no_cache: bool = False,
    failed: PathLike | None = None,
    allow_failed: bool = False,
    output: PathLike | None = None,
    force: bool = False,
    progress: bool | Progress = False,
) -> Iterator[Union[PromptRecord, ImageRecord]]:
    """As `sanactl.relabel`, one record after the other.

    Arguments are checked at the call. Same arguments and errors as `sanactl.relabel`.
    """
    from sanactl.prompts.rewrite import relabel_tasks

    asking = _Asking(llm, llm_options, device_name(device), dtype_name(dtype), tries, (max_requests, max_tokens, price), no_cache)  # fmt: skip
    outputs = _Outputs(failed, allow_failed, output, force)
    yield from _renewed(prompts, relabel_tasks(to), asking, outputs, as_progress(progress))


@listed(iter_relabel)
def relabel() -> None:
    """Translates prompts into the paper's language forms by a language model, and checks each answer.

    Args:
        prompts: texts, prompt or image records, a file of them, one text, or "shapes".
        to: the forms, each once: "en", "zh", "en-zh", "emoji"; names, or a text with commas.
        llm: "shapes" (rules for the built-in world; the default), "hf:FOLDER", "hf:OWNER/NAME", a server's address with
            its model ("http://localhost:8000/v1#MODEL"), or an opened model (`sanactl.prompts.llm.protocol.LanguageModel`).
        llm_options: options of the model's backend, by name (docs/rewriting.md).
        tries: answers that are asked for until one passes its checks.
        max_requests, max_tokens: what is asked for at most; tokens of messages and answers together.
        price: "IN,OUT", dollars for a million tokens; `progress` then shows the cost.
        device, dtype: of a model on this machine; see `sanactl.sample`.
        no_cache: ask again where the answer is known from earlier calls.
        failed: write the records without a good answer to this .jsonl file, with `rewrite_error`.
        allow_failed: do not raise where there are such records.
        output: also write the records to this .jsonl file.
        force: replace `output` and `failed` where they are there.
        progress: True for a bar of the records.

    Returns:
        a record for each prompt and form, in order, with the new `prompt`, `prompt_original` and `prompt_form`. Answers of a
        model are kept in the current folder's .sanactl/answers: no later call or command asks for them again.

    Raises:
        UsageError: no such form, model or option.
        InputError: a record cannot be read, the model fails, a limit is reached, or records failed (raised at the end).
        OutputExistsError: `output` or `failed` is there, and `force` was not given.

    Source: appendix C, figures 13 to 15.
    """


@checked
def iter_rewrite(
    prompts: Prompts,
    *,
    style: PathLike = "detail",
    llm: str | LanguageModel | None = None,
    llm_options: Mapping[str, Any] | None = None,
    tries: int = 3,
    max_requests: int | None = None,
    max_tokens: int | None = None,
    price: str | None = None,
    device: DeviceLike | None = None,
    dtype: DtypeLike | None = None,
    no_cache: bool = False,
    failed: PathLike | None = None,
    allow_failed: bool = False,
    output: PathLike | None = None,
    force: bool = False,
    progress: bool | Progress = False,
) -> Iterator[Union[PromptRecord, ImageRecord]]:
    """As `sanactl.rewrite`, one record after the other.

    Arguments are checked at the call. Same arguments and errors as `sanactl.rewrite`.
    """
    from sanactl.prompts.rewrite import rewrite_task

    asking = _Asking(llm, llm_options, device_name(device), dtype_name(dtype), tries, (max_requests, max_tokens, price), no_cache)  # fmt: skip
    outputs = _Outputs(failed, allow_failed, output, force)
    yield from _renewed(prompts, [rewrite_task(os.fspath(style))], asking, outputs, as_progress(progress))


@listed(iter_rewrite)
def rewrite() -> None:
    """Adds detail to prompts by a language model, and checks each answer.

    Args:
        prompts: texts, prompt or image records, a file of them, one text, or "shapes".
        style: "detail" (the paper's prompt enhancement), "chi" (SANA's complex human instruction, asked of the model), or a
            text file with `{prompt}` in it.
        llm, llm_options, tries, max_requests, max_tokens, price, device, dtype, no_cache: as of `sanactl.relabel`.
        failed, allow_failed, output, force, progress: as of `sanactl.relabel`.

    Returns:
        a record for each prompt, in order, with the new `prompt`, `prompt_original` and `prompt_style`.

    Raises:
        UsageError: no such model or option.
        InputError: a record or the style's file cannot be read, the model fails, a limit is reached, or records failed
            (raised at the end).
        OutputExistsError: `output` or `failed` is there, and `force` was not given.

    Source: appendix D, figure 19.
    """


@dataclass(frozen=True)
class _Asking:
    """The arguments about the model."""

    llm: str | LanguageModel | None
    options: Mapping[str, Any] | None
    device: str | None
    dtype: str | None
    tries: int
    limits: tuple[int | None, int | None, str | None]
    no_cache: bool


@dataclass(frozen=True)
class _Outputs:
    """The arguments about files."""

    failed: PathLike | None
    allow_failed: bool
    output: PathLike | None
    force: bool


def _renewed(
    prompts: Prompts, tasks: Sequence[Task], asking: _Asking, outputs: _Outputs, progress: Progress
) -> Iterator[Union[PromptRecord, ImageRecord]]:
    from sanactl.files.atomic import check_target
    from sanactl.prompts.asking import Asker
    from sanactl.prompts.failures import FailedRecords
    from sanactl.prompts.kept_answers import KeptAnswers
    from sanactl.prompts.llm.registry import open_llm
    from sanactl.prompts.rewrite import new_prompts
    from sanactl.prompts.spending import Limits, Spending, read_price

    requests, tokens, price = asking.limits
    spending = Spending(Limits(requests, tokens, read_price(price)))
    if outputs.failed is not None:
        check_target(Path(outputs.failed), outputs.force)
    writing = writing_to(outputs.output, outputs.force)
    model = asking.llm
    if model is None or isinstance(model, str):
        model = open_llm(model, device=asking.device, dtype=asking.dtype, **(asking.options or {}))
    kept = KeptAnswers(Path.cwd(), model, ask_again=asking.no_cache)
    asker = Asker(model, kept, spending, tries=asking.tries, progress=progress)
    records = _records(prompts)
    yield CHECKED
    progress.start(None, f"asking {model.name}")
    failed = None if outputs.failed is None else Path(outputs.failed)
    try:
        with FailedRecords(failed, force=outputs.force) as failures:
            for record in writing(new_prompts(records, tasks, asker, failed=failures.add)):
                yield cast("PromptRecord | ImageRecord", record)
    finally:
        progress.close()
    if failures.count and not outputs.allow_failed:
        raise InputError(
            f"records that failed: {failures.count:,} ({'; '.join(failures.reasons)})",
            hint="failed=FILE keeps them, allow_failed=True makes this no error",
        )


def _records(prompts: Prompts) -> Iterator[Record]:
    """Prompt and image records from what is given."""
    from sanactl.records.prompts import numbered, stream_prompt_file
    from sanactl.records.records import check_record
    from sanactl.sampling.inputs import builtin_prompts, given_prompts, is_prompt

    if isinstance(prompts, str):
        if prompts == "shapes":
            return iter(builtin_prompts("shapes"))
        if is_prompt(prompts):
            return iter(given_prompts([prompts], "prompts"))
    if isinstance(prompts, str | os.PathLike):
        return numbered(stream_prompt_file(Path(prompts), ("prompt", "image")))
    kinds = ("prompt", "image")
    given = ({"prompt": p} if isinstance(p, str) else p for p in prompts)
    return numbered(
        check_record(p, f"prompts, record {n}", "prompt", kinds=kinds) for n, p in enumerate(given, 1)
    )
