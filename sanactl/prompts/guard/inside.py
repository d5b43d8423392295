"""A guard inside another command: a list of prompts in, those that pass out, before the command's own models are loaded."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sanactl.errors import InputError, UsageError
from sanactl.files.content import json_digest
from sanactl.files.progress import SILENT, Progress
from sanactl.model.processes import agree
from sanactl.prompts.guard.filter import Rules, Tally, guard_prompts
from sanactl.prompts.guard.kept import KeptFindings
from sanactl.prompts.guard.registry import open_guard
from sanactl.records.records import Record

__all__ = ["Guarded", "safe_prompts"]

_OPENING = ("device", "dtype", "policy")
_RULES = ("threshold", "non_english")


@dataclass(frozen=True)
class Guarded:
    """Prompts that were checked, or that no guard was asked about.

    Attributes:
        passed: the records of those to draw.
        blocked: the others'; None without a guard.
        identity: what decided, as JSON: the guard's name, a digest of what its findings depend on, and the rules; None
            without a guard.
    """

    passed: list[Record]
    blocked: list[Record] | None = None
    identity: dict[str, Any] | None = None


def safe_prompts(
    records: Sequence[Record],
    name: str,
    options: Mapping[str, Any],
    *,
    place: Path | None,
    tell: Callable[[str], None],
    progress: Progress = SILENT,
) -> Guarded:
    """Checks a list of prompts. The guard's model is dropped at the end.

    Args:
        name: of the guard; see `sanactl.prompts.guard.registry.open_guard`.
        options: `device`, `dtype`, `policy`, `threshold` and `non_english`, as values or as text.
        place: the folder in whose memory the findings are kept; None for nowhere.
        tell: called with each line that the user should know of, such as how many prompts were blocked.

    Raises:
        UsageError: no such guard or option.
        InputError: the guard cannot be loaded or run, or it blocks every prompt.
    """
    if unknown := sorted(set(options) - {*_OPENING, *_RULES}):
        raise UsageError(
            f"a guard has no option {unknown[0]!r}", hint=f"its options: {', '.join((*_OPENING, *_RULES))}"
        )
    rules = Rules(**{key: _number(options[key], key) for key in _RULES if key in options})
    opening = {key: options[key] for key in _OPENING if key in options}

    def decide() -> Guarded:
        progress.start(None, f"loading the guard {name}")
        guard = open_guard(name, **opening)
        if notice := getattr(guard, "notice", None):
            tell(notice)
        tally = Tally()
        checked = [
            *guard_prompts(
                records,
                guard,
                rules,
                kept=KeptFindings(place, guard, tell=tell),
                tally=tally,
                progress=progress,
            )
        ]
        for line in tally.lines(guard):
            tell(line)
        passed, blocked = ([c.record for c in checked if c.passes is wanted] for wanted in (True, False))
        if not passed:
            raise InputError(
                f"{guard.name} blocked all {len(blocked):,} prompts; there is nothing to draw",
                hint="sanactl guard PROMPTS --blocked FILE tells why for each",
            )
        known = {"name": guard.name, "digest": json_digest(guard.identity)[:16]}
        return Guarded(passed, blocked, {**known, "rules": [rules.threshold, rules.non_english]})

    decided = agree(decide)
    if "torch" in sys.modules:
        import gc

        import torch

        gc.collect()
        if torch.cuda.is_available():  # the memory is for the command's own models
            torch.cuda.empty_cache()
    return decided


def _number(value: Any, key: str) -> Any:
    if key != "threshold" or not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        raise UsageError(f"the guard's threshold is {value!r}", hint="it takes 0 to 1") from None
