"""Question lists of Soft-TIFA: for each prompt its atoms, questions with the expected answer.

Two forms, in a prompt record or in a line of a file: GenEval 2's (`vqa_list`: [[question, answer], ...], `skills`,
`atom_count`), and `atoms`: [{"question", "answer", "skill"}, ...].
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sanactl.errors import InputError
from sanactl.records.prompts import meant_prompt
from sanactl.records.records import MAX_HELD, Record, stream_records

__all__ = ["Atom", "Atoms", "QuestionList", "arithmetic", "geometric"]

MOST = 1000  # questions of a prompt


@dataclass(frozen=True)
class Atom:
    """A question, its expected answer, and what it tests ("count"; "" for nothing in particular)."""

    question: str
    answer: str
    skill: str


@dataclass(frozen=True)
class Atoms:
    """A prompt's questions, and its `atom_count` where it has one."""

    name: str
    questions: tuple[Atom, ...]
    count: int | None


class QuestionList:
    """The questions of prompts, from a file or from the image records themselves.

    Args:
        path: a file of JSON lines, each with `prompt`, the questions and perhaps an `id`; None where the records have
            the questions.

    Raises:
        InputError: the file cannot be read, a line has no questions or wrong ones, or a prompt comes twice with others.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.names: dict[str, None] = {}
        self._by_id: dict[str, Atoms] = {}
        self._by_prompt: dict[str, Atoms | None] = {}
        if path is None:
            return
        lines = stream_records(path, kinds=("prompt",), default_kind="prompt", most=MAX_HELD)
        for number, record in enumerate(lines, 1):
            self._add(record, f"{path}, record {number}")
        if not self.names:
            raise InputError(f"{path}: holds no prompts")

    def _add(self, record: Record, where: str) -> None:
        atoms = _atoms(record, where)
        if atoms is None:
            raise InputError(f"{where}: no vqa_list and no atoms", hint="see docs/dpg.md for the forms")
        self.names[atoms.name] = None
        if record.get("id") is not None and self._by_id.setdefault(atoms.name, atoms) != atoms:
            raise InputError(f"{where}: the id {atoms.name[:80]!r} comes twice, with other questions")
        known = self._by_prompt.setdefault(record["prompt"], atoms)
        if known is not None and known != atoms:
            if record.get("id") is None:
                raise InputError(
                    f"{where}: its prompt comes twice, with other questions", hint="give them an id"
                )
            self._by_prompt[record["prompt"]] = None  # the id alone tells them apart

    def of(self, record: Record) -> Atoms | None:
        """The questions about an image; None if there are none.

        Raises:
            InputError: the record's own questions are wrong.
        """
        if self.path is None:
            return _atoms(record, str(record["path"]))
        found = self._by_id.get(str(record.get("prompt_id")))
        return found if found is not None else self._by_prompt.get(meant_prompt(record))


def _atoms(record: Mapping[str, Any], where: str) -> Atoms | None:
    """The questions of a record, checked; None where it has none."""
    pairs, atoms = record.get("vqa_list"), record.get("atoms")
    if pairs is None and atoms is None:
        return None
    try:
        questions = _of_pairs(pairs, record.get("skills")) if pairs is not None else _of_objects(atoms)
    except (TypeError, ValueError, KeyError):
        form = (
            "vqa_list is no list of [question, answer]"
            if pairs is not None
            else "atoms is no list of objects"
        )
        raise InputError(
            f"{where}: {form}, or skills has another length",
            hint='"vqa_list": [["How many dogs are in the image?", "two"], ...], "skills": ["count", ...]',
        ) from None
    if not 0 < len(questions) <= MOST:
        raise InputError(f"{where}: {len(questions):,} questions; a prompt has 1 to {MOST:,}")
    count = record.get("atom_count")
    if count is not None and (type(count) is not int or not 0 <= count <= 10**6):
        raise InputError(f"{where}: atom_count is {str(count)[:40]!r}, not a whole number")
    name = record.get("prompt_id") if record.get("kind") == "image" else record.get("id")
    return Atoms(str(record["prompt"] if name is None else name), questions, count)


def _of_pairs(pairs: Any, skills: Any) -> tuple[Atom, ...]:
    names = [""] * len(pairs) if skills is None else skills
    return tuple(
        Atom(_text(question), _text(answer), _text(skill, empty=True))
        for (question, answer), skill in zip(pairs, names, strict=True)
    )


def _of_objects(atoms: Any) -> tuple[Atom, ...]:
    if not isinstance(atoms, list):
        raise TypeError
    return tuple(
        Atom(_text(a["question"]), _text(a["answer"]), _text(a.get("skill", ""), empty=True)) for a in atoms
    )


def _text(value: Any, *, empty: bool = False) -> str:
    if not isinstance(value, str) or not (empty or value.strip()):
        raise TypeError
    return value.strip()


def arithmetic(probabilities: Sequence[float]) -> float:
    """The arithmetic mean (Soft-TIFA AM)."""
    return math.fsum(probabilities) / len(probabilities)


def geometric(probabilities: Sequence[float]) -> float:
    """The geometric mean (Soft-TIFA GM); 0 where one is 0."""
    if min(probabilities) <= 0:
        return 0.0
    return math.exp(math.fsum(map(math.log, probabilities)) / len(probabilities))
