"""`relabel` and `rewrite`: prompt or image records in, records with new prompts out.

The original stays on the record as `prompt_original`, with what makes the image right (`tag`, `include`, `exclude`), so
that an image of a new prompt is scored and judged by what the original says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sanactl.errors import UsageError
from sanactl.prompts.asking import Asker, Job
from sanactl.prompts.checks import Wanted
from sanactl.prompts.scripts import count_scripts
from sanactl.prompts.templates import FORMS, filled, form_template, style_template
from sanactl.records.records import Record

__all__ = ["LONGEST_PROMPT", "Task", "new_prompts", "relabel_tasks", "rewrite_task"]

LONGEST_PROMPT = 8_000  # characters of a prompt that is sent
# Characters of a rewritten prompt: SANA's text encoder takes 300 tokens, about 1,200 characters; a template of one's own
# may want more.
_LONGEST_DETAIL, _LONGEST_OWN = 2_000, 8_000
_KEPT_ANSWER = 2_000
# Fields of a record that failed before; a new prompt does away with them.
_OF_FAILURE = ("rewrite_error", "rewrite_answer")


@dataclass(frozen=True)
class Task:
    """Something that is made of each prompt.

    Attributes:
        field: of the record, that names it: "prompt_form" or "prompt_style".
        name: the form or the style.
        template: see `sanactl.prompts.templates`.
    """

    field: str
    name: str
    template: str

    @property
    def form(self) -> str | None:
        """The language form of the new prompt; None for the original's."""
        return self.name if self.field == "prompt_form" else None

    def wanted(self, record: Record) -> Wanted:
        """What an answer about a record must be."""
        prompt: str = record["prompt"]
        if self.form is not None:
            return Wanted(prompt, self.form, None, False, record)
        detail = self.name in ("detail", "chi")
        longest = max(_LONGEST_DETAIL if detail else _LONGEST_OWN, 2 * len(prompt))
        return Wanted(prompt, None, longest, detail, record)


def relabel_tasks(forms: str | Sequence[str]) -> list[Task]:
    """The tasks of `relabel --to`: names of forms, as a list or with commas between them.

    Raises:
        UsageError: there is no such form, or one comes twice, or there is none.
    """
    names = [name.strip() for name in forms.split(",")] if isinstance(forms, str) else list(forms)
    if not names or names == [""]:
        raise UsageError("no language form is given", hint=f"there are: {', '.join(FORMS)}")
    if len(set(names)) < len(names):
        raise UsageError(f"a language form comes twice in {','.join(names)}")
    return [Task("prompt_form", name, form_template(name)) for name in names]


def rewrite_task(style: str) -> Task:
    """The task of `rewrite --style`.

    Raises:
        InputError: the file of a template cannot be used.
    """
    return Task("prompt_style", *style_template(style))


def new_prompts(
    records: Iterable[Record],
    tasks: Sequence[Task],
    asker: Asker,
    *,
    failed: Callable[[Record], None],
) -> Iterator[Record]:
    """Records with new prompts, in the order of the records, those of one record in the order of the tasks.

    Args:
        records: prompt and image records. They are read in another thread, a little ahead.
        tasks: what is made of each prompt.
        asker: the language model with its answers so far.
        failed: called with each record that no answer is good for, in its place: with `rewrite_error`, the reason,
            `rewrite_answer`, the last answer, and the task's field.

    Yields:
        the records, with the new `prompt`, `prompt_original`, the task's field and `prompt_llm`. A language form is added
        to `id` and `prompt_id`, so that the forms of a prompt are different prompts.

    Raises:
        InputError: a record cannot be read, the model fails, or a limit of the run is reached; see `Asker.run`.
    """
    asker.model.check([task.name for task in tasks])
    for job in asker.run(_jobs(records, tasks)):
        record, task = job.about
        if job.text is None:
            known: Record = {**_without(record), task.field: task.name, "rewrite_error": job.fault}
            failed({**known, "rewrite_answer": job.answer[:_KEPT_ANSWER]} if job.answer else known)
            continue
        yield _renewed(record, task, job.text, None if job.message == "" else asker.model.name)


def _jobs(records: Iterable[Record], tasks: Sequence[Task]) -> Iterator[Job]:
    for record in records:
        prompt: str = record["prompt"]
        for task in tasks:
            job = Job(filled(task.template, prompt), task.name, task.wanted(record), (record, task))
            if not prompt.strip():
                job.fault = "the prompt is empty"
            elif len(prompt) > LONGEST_PROMPT:
                job.fault = f"the prompt has {len(prompt):,} characters, more than {LONGEST_PROMPT:,}"
            elif task.form == "en" and _is_english(prompt):
                job.text, job.message = prompt, ""
            yield job


def _is_english(prompt: str) -> bool:
    found = count_scripts(prompt)
    return bool(found.latin) and not (found.han or found.other or found.emoji)


def _renewed(record: Record, task: Task, text: str, model: str | None) -> Record:
    new: Record = {**_without(record), "prompt": text}
    for name in ("id", "prompt_id"):
        if task.form is not None and new.get(name) is not None:
            new[name] = f"{new[name]}-{task.name}"
    new["prompt_original"] = record.get("prompt_original") or record["prompt"]
    new[task.field] = task.name
    if model is not None:
        new["prompt_llm"] = model
    return new


def _without(record: Record) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in _OF_FAILURE}
