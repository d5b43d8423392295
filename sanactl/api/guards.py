"""`sanactl.guard`: prompts that a safety model finds safe, and those that it blocks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from sanactl.api.inputs import (
    DeviceLike,
    DtypeLike,
    PathLike,
    Prompts,
    as_progress,
    device_name,
    dtype_name,
    warn,
)
from sanactl.errors import InputError, UsageError
from sanactl.files.progress import Progress
from sanactl.prompts.guard.registry import DEFAULT

if TYPE_CHECKING:
    from sanactl.prompts.guard.inside import Guarded
    from sanactl.records.records import Record
    from sanactl.records.types import PromptRecord

__all__ = ["SafePrompts", "guard", "guarded"]


class SafePrompts(NamedTuple):
    """What `sanactl.guard` returns: the records that pass, and those that are blocked, each in order."""

    passed: list[PromptRecord]
    blocked: list[PromptRecord]


def guard(
    prompts: Prompts,
    *,
    model: str = DEFAULT,
    policy: str | None = None,
    threshold: float = 0.2,
    non_english: str = "flag",
    blocked: PathLike | None = None,
    batch_size: int = 8,
    device: DeviceLike | None = None,
    dtype: DtypeLike | None = None,
    no_cache: bool = False,
    output: PathLike | None = None,
    force: bool = False,
    progress: bool | Progress = False,
) -> SafePrompts:
    """Checks prompts by a safety model. A prompt that cannot be checked is blocked, too.

    Args:
        prompts: texts or records in a list, or a file of them.
        model: the folder or Hub id of a language model that answers yes or no, or "builtin:words", a list of words for
            trying a pipe and no protection.
        policy: what a model is asked: "shieldgemma", the four policies of its model card one by one, or "sana", the one of
            SANA's apps; None is "shieldgemma".
        threshold: a prompt is blocked if a policy's probability is above this, 0 to 1.
        non_english: "flag" or "block" prompts that are not in Latin letters.
        blocked, output: files for the blocked prompts and for the others; None for no file.
        batch_size: prompts that are checked and kept together. It does not change what is found.
        device: where the model runs, a name or a `torch.device`; by default the best there is.
        dtype: of the weights, a name or a `torch.dtype`; by default bf16 on a GPU, fp32 on a CPU.
        no_cache: ask again about prompts whose findings are known from earlier runs (`.sanactl/guards`).
        force: replace files that are there.
        progress: True for a bar of the prompts.

    Returns:
        `passed` and `blocked`, records with `guard`, `guard_policy`, `guard_probability` and `guard_flags`; the blocked ones
        also with `guard_reason` and `guard_probabilities`.

    Raises:
        UsageError: a setting out of its range, no such guard, policy, device or dtype.
        InputError: a bad prompt; a model that cannot be loaded or run.
        OutputExistsError: a file is there, and `force` was not given.

    Source: appendix E; the model card of google/shieldgemma-2b.
    """
    from sanactl.files.atomic import check_target
    from sanactl.prompts.guard.filter import Rules, guard_prompts
    from sanactl.prompts.guard.kept import KeptFindings
    from sanactl.prompts.guard.registry import open_guard
    from sanactl.records.records import write_records

    rules = Rules(threshold, non_english)
    targets = [None if path is None else Path(path) for path in (output, blocked)]
    if targets[0] is not None and targets[0] == targets[1]:
        raise UsageError("output and blocked are one file; name two")
    for target in targets:
        if target is not None:
            check_target(target, force)
    records = _records(prompts)
    chosen = open_guard(model, device=device_name(device), dtype=dtype_name(dtype), policy=policy)
    if notice := getattr(chosen, "notice", None):
        warn(notice)
    kept = KeptFindings(Path.cwd(), chosen, ask_again=no_cache, tell=warn)
    checked = [
        *guard_prompts(
            records, chosen, rules, batch_size=batch_size, kept=kept, progress=as_progress(progress)
        )
    ]
    sides = [[one.record for one in checked if one.passes is wanted] for wanted in (True, False)]
    for side, target in zip(sides, targets, strict=True):
        if target is not None:
            write_records(side, target, force=force)
    return SafePrompts(*(cast("list[PromptRecord]", side) for side in sides))


def _records(prompts: Prompts) -> list[Record]:
    """Prompt records. Unlike for other functions, an empty prompt is no error: it is blocked."""
    import os

    from sanactl.records.jsonl import open_lines
    from sanactl.records.prompt_tables import is_table
    from sanactl.records.prompts import load_prompts, number_prompts, stream_prompts
    from sanactl.records.records import check_record
    from sanactl.sampling.inputs import is_prompt

    if isinstance(prompts, str) and is_prompt(prompts):
        prompts = [prompts]
    if isinstance(prompts, str | os.PathLike) and is_table(os.fspath(prompts)):
        return load_prompts(Path(prompts))
    if isinstance(prompts, str | os.PathLike):
        with open_lines(Path(prompts), "prompt file") as stream:
            return number_prompts(list(stream_prompts(stream, str(prompts))))
    given: Iterable[Any] = prompts
    found: list[Any] = [{"prompt": prompt} if isinstance(prompt, str) else prompt for prompt in given]
    if not found:
        raise InputError("prompts: no prompts in it")
    return number_prompts(
        [
            check_record(record, f"prompts, prompt {number}", "prompt", kinds=("prompt",))
            for number, record in enumerate(found, 1)
        ]
    )


def guarded(
    records: Sequence[Record],
    name: str | None,
    options: Mapping[str, Any] | None,
    device: DeviceLike | None,
    progress: Progress,
) -> Guarded:
    """The prompts that pass `guard` of another function; all without one.

    Raises:
        UsageError: no such guard or option.
        InputError: the guard cannot be loaded or run, or it blocks every prompt.
    """
    from sanactl.prompts.guard.inside import Guarded, safe_prompts

    if name is None:
        if options:
            raise UsageError("guard_options without guard")
        return Guarded([*records])
    known = {"device": device, **(options or {})}
    chosen = {
        key: str(value).removeprefix("torch.") if key in ("device", "dtype") else value
        for key, value in known.items()
        if value is not None
    }
    return safe_prompts(records, name, chosen, place=Path.cwd(), tell=warn, progress=progress)
