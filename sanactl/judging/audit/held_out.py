"""Prompts that nothing may be fitted on: those that scores are measured on."""

from __future__ import annotations

from functools import cache

__all__ = ["evaluation_set"]


def evaluation_set(prompt: str) -> str | None:
    """Which evaluation set a prompt belongs to; None for no known one."""
    if prompt in _geneval():
        return "GenEval's 553 prompts"
    return "the evaluation split of the built-in world" if prompt in _shapes() else None


@cache
def _geneval() -> frozenset[str]:
    from sanactl.prompts.geneval.benchmark import geneval_prompts

    return frozenset(str(record["prompt"]) for record in geneval_prompts())


@cache
def _shapes() -> frozenset[str]:
    from sanactl.shapes.prompts import all_prompts

    return frozenset(str(record["prompt"]) for record in all_prompts("eval"))
