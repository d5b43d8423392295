"""Which benchmark's prompts a score is of, and how many of them: a part of a benchmark is not the benchmark."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from sanactl.prompts.geneval.benchmark import geneval_prompts
from sanactl.shapes.prompts import load_eval_prompts

__all__ = ["WHOLE_GENEVAL", "PromptCoverage"]

GENEVAL, SHAPES = "GenEval's", "the built-in world's"
# What stands in the `benchmark` of a score of all of GenEval's prompts and no other: only this one is a GenEval score.
WHOLE_GENEVAL = "GenEval's 553 prompts"


class PromptCoverage:
    """Counts the distinct prompts of records by the benchmark that they are of."""

    def __init__(self) -> None:
        self._seen: dict[str, set[str]] = {GENEVAL: set(), SHAPES: set(), "": set()}

    def add(self, record: Mapping[str, Any]) -> None:
        """Counts the prompt of a record with GenEval's `tag` and clauses."""
        key = _key(record)
        for name in (GENEVAL, SHAPES):
            if key in _prompts_of(name):
                self._seen[name].add(key)
                return
        self._seen[""].add(key)

    def said(self) -> str:
        """In words: "GenEval's 553 prompts", "120 of GenEval's 553 prompts", "3 other prompts", or several of these."""
        parts = []
        for name in (GENEVAL, SHAPES):
            count, whole = len(self._seen[name]), len(_prompts_of(name))
            if count:
                parts.append(
                    f"{name} {whole} prompts" if count == whole else f"{count} of {name} {whole} prompts"
                )
        others = len(self._seen[""])
        if others:
            parts.append(f"{others:,} other prompt{'' if others == 1 else 's'}")
        return " and ".join(parts)


@cache
def _prompts_of(name: str) -> frozenset[str]:
    return frozenset(map(_key, geneval_prompts() if name == GENEVAL else load_eval_prompts()))


def _key(record: Mapping[str, Any]) -> str:
    """What a prompt is told apart by: its text, and what it asks for."""
    exclude = record.get("exclude") or []
    prompt = record.get("prompt_original") or record.get("prompt")
    return json.dumps([record["tag"], record["include"], exclude, prompt], sort_keys=True)
