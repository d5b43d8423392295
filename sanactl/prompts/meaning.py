"""What a prompt means, so that prompts are compared by meaning and not by their words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from sanactl.errors import InputError
from sanactl.prompts.geneval.vocabulary import INVERSE
from sanactl.prompts.read_text import clauses_of, normal_text, without_medium

__all__ = ["evaluation_set", "meaning", "meanings", "refuse_evaluation_prompts", "texts_of"]

# The fields of a record that hold a prompt's words. `prompt_original` is what a rewritten prompt was before.
_TEXTS = ("prompt", "prompt_original")


def meaning(record: Mapping[str, Any] | str) -> str:
    """A key that prompts of equal meaning share.

    "A left of B" is "B right of A"; the order of things that are joined by "and" makes no difference, nor does what the
    image is called ("a photo of"). Counts and colours do. An `exclude` clause that only bounds the count of an
    `include` clause adds nothing. The key is of the record's `include`, else of the words of its prompt where they are
    GenEval's or the built-in world's grammar, else it is the text itself without differences of case and spaces.

    Args:
        record: a prompt record, or a prompt's text.
    """
    if isinstance(record, str):
        record = {"prompt": record}
    if (key := _meaning_of_clauses(record.get("include"), record.get("exclude"))) is not None:
        return key
    return _meaning_of_text(str(record.get("prompt", "")))


def meanings(record: Mapping[str, Any]) -> set[str]:
    """All keys that a record may be known by: of its clauses, of its prompt, and of the prompt that it was rewritten from.

    They differ where a prompt was rewritten or translated, or does not say what its clauses ask for.
    """
    return {meaning(record), *map(_meaning_of_text, texts_of(record))}


def texts_of(record: Mapping[str, Any]) -> list[str]:
    """The record's prompt, and the one that it was rewritten from."""
    return [value for name in _TEXTS if isinstance(value := record.get(name), str)]


def evaluation_set(record: Mapping[str, Any] | str) -> str | None:
    """Which evaluation set has a prompt of this meaning; None for no known one.

    The built-in world holds out some of its prompts in certain words ("sketch of a star") and not the meaning, since it
    has few meanings in the small tasks; of these, equal words count.
    """
    if isinstance(record, str):
        record = {"prompt": record}
    keys = meanings(record)
    if keys & _geneval():
        return "GenEval's 553 prompts"
    meant, said = _shapes()
    texts = {normal_text(text) for text in texts_of(record)}
    return "the evaluation split of the built-in world" if keys & meant or texts & said else None


def refuse_evaluation_prompts(records: Iterable[Mapping[str, Any]], purpose: str) -> None:
    """Refuse prompts that mean what a prompt of an evaluation set means.

    Args:
        records: prompt or image records.
        purpose: what must not be fitted on them ("a judge").

    Raises:
        InputError: there is one. The message has the first, and how many prompts there are in all.
    """
    found: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    for record in records:
        prompt = str(record.get("prompt", ""))
        key = prompt, meaning(record)
        if key not in seen and (owner := evaluation_set(record)) is not None:
            found[prompt] = owner
        seen.add(key)
    if found:
        prompt, owner = next(iter(found.items()))
        more = f" (and {len(found) - 1:,} more)" if len(found) > 1 else ""
        raise InputError(
            f"prompt {prompt[:60]!r} means one of {owner}{more}; {purpose} must not be trained on it",
            hint="`sanactl prompts geneval --split train` and `prompts shapes --split train` write others",
        )


def _meaning_of_text(text: str) -> str:
    clauses = clauses_of(text)
    key = None if clauses is None else _meaning_of_clauses(clauses, None)
    return f"text: {without_medium(normal_text(text))}" if key is None else key


def _meaning_of_clauses(include: Any, exclude: Any) -> str | None:
    """The key of clauses in GenEval's form: sorted labels, then sorted relations; None for another form.

    A relation names its things by their labels. So clauses of equal labels are not told apart.
    """
    labels, relations = [], []
    if not isinstance(include, list) or not include:
        return None
    for clause in include:
        if (label := _label(clause)) is None:
            return None
        labels.append(label)
        if (position := clause.get("position")) is None:
            continue
        if not isinstance(position, list | tuple) or len(position) != 2 or position[0] not in INVERSE:
            return None
        relation, target = position
        if type(target) is not int or not 0 <= target < len(labels) - 1:
            return None
        one, other = label, labels[target]
        if relation in ("right of", "below"):
            one, relation, other = other, INVERSE[relation], one
        relations.append(f"{one} {relation} {other}")
    bounds = {(c["class"], c["count"] + 1) for c in include}
    forbidden = []
    for clause in exclude if isinstance(exclude, list) else ():
        if (label := _label(clause)) is not None and (clause["class"], clause["count"]) not in bounds:
            forbidden.append(f"no {label}")
    return "; ".join((*sorted(labels), *sorted(relations), *sorted(forbidden)))


def _label(clause: Any) -> str | None:
    if not isinstance(clause, Mapping) or not isinstance(clause.get("class"), str):
        return None
    count, color = clause.get("count"), clause.get("color")
    if type(count) is not int or count < 1 or not isinstance(color, str | None):
        return None
    return f"{count} {f'{color} ' if color else ''}{normal_text(clause['class'])}"


@cache
def _geneval() -> frozenset[str]:
    from sanactl.prompts.geneval.benchmark import geneval_prompts

    return frozenset(map(meaning, geneval_prompts()))


@cache
def _shapes() -> tuple[frozenset[str], frozenset[str]]:
    """The meanings and the texts that the evaluation split of the built-in world holds out."""
    from sanactl.shapes.prompts import HELD_OUT_BY_PHRASE, contents, record_of, split_of
    from sanactl.shapes.vocabulary import PHRASES, TASKS

    by_meaning, by_text = set(), set()
    for tag in TASKS:
        phrases = PHRASES if tag in HELD_OUT_BY_PHRASE else PHRASES[:1]
        for content in contents(tag):
            for phrase in phrases:
                if split_of(tag, content, phrase) != "eval":
                    continue
                record = record_of(tag, content, phrase)
                if tag in HELD_OUT_BY_PHRASE:
                    by_text.add(normal_text(record["prompt"]))
                else:
                    by_meaning.add(meaning(record))
    return frozenset(by_meaning), frozenset(by_text)
