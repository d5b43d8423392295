"""Prompts through a guard: those that pass, and those that are blocked, in the order in which they came."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sanactl.errors import SanactlError, UsageError
from sanactl.files.progress import SILENT, Progress
from sanactl.model.sharing import at_once, compute_all, serve
from sanactl.prompts.guard.kept import KeptFindings
from sanactl.prompts.guard.language import is_non_english
from sanactl.prompts.guard.protocol import Finding, Guard
from sanactl.records.batches import batches
from sanactl.records.records import Record

__all__ = ["NON_ENGLISH", "THRESHOLD", "Checked", "Rules", "Tally", "guard_prompts", "serve_guard"]

THRESHOLD = 0.2  # of SANA's apps
NON_ENGLISH = ("flag", "block")
_UNSURE = 0.5  # of the probability of yes and no together
# Fields of an earlier guard are not this one's.
_FIELDS = ("guard", "guard_policy", "guard_probability", "guard_probabilities", "guard_flags", "guard_reason")


class Checked(NamedTuple):
    """A prompt's record with what the guard found, and whether it passes."""

    record: Record
    passes: bool


@dataclass(frozen=True)
class Rules:
    """What blocks a prompt.

    Attributes:
        threshold: a policy's probability above it blocks, 0 to 1.
        non_english: "flag" or "block" prompts that are not in Latin letters.

    Raises:
        UsageError: a value out of its range.
    """

    threshold: float = THRESHOLD
    non_english: str = NON_ENGLISH[0]

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise UsageError(f"the guard's threshold is {self.threshold:g}", hint="it takes 0 to 1")
        if self.non_english not in NON_ENGLISH:
            raise UsageError(
                f"non-English prompts: {self.non_english!r}", hint=f"choose one of {', '.join(NON_ENGLISH)}"
            )


@dataclass
class Tally:
    """How many prompts were checked, and with what result."""

    checked: int = 0
    blocked: int = 0
    flagged: int = 0
    earlier: int = 0
    unsure: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    def lines(self, guard: Guard) -> Iterator[str]:
        """What the user should know at the end."""
        if self.earlier:
            yield f"{self.earlier:,} findings are taken over from earlier runs"
        if 2 * self.unsure > self.checked:
            yield (
                f"warning: {guard.name} answers most prompts with neither Yes nor No; it may not be a guard of this kind"
            )
        if self.flagged:
            yield f"{self.flagged:,} prompts are not in English letters (flagged): {guard.name} may not understand them"
        why = "; ".join(f"{count:,} by {reason}" for reason, count in self.reasons.most_common())
        yield f"{guard.name} blocked {self.blocked:,} of {self.checked:,} prompts{f' ({why})' if why else ''}"


def guard_prompts(
    records: Iterable[Record],
    guard: Guard,
    rules: Rules,
    *,
    batch_size: int = 8,
    kept: KeptFindings | None = None,
    tally: Tally | None = None,
    progress: Progress = SILENT,
) -> Iterator[Checked]:
    """Checks prompts as they come.

    A prompt is blocked if the guard's probability of one of its policies is above the threshold, and also if there is none:
    an empty prompt, one that is too long for the model, one that the model fails on.

    Args:
        records: `prompt` records.
        guard: see `sanactl.prompts.guard.registry.open_guard`.
        batch_size: prompts that are checked, kept and passed on together (by each process). It does not change what is found.
        kept: this guard's findings of earlier runs; this run's are added. By default they are kept for this call.
        tally: is counted up.

    Yields:
        The records, in order, with `guard` (its name), `guard_policy` (the one with the largest probability),
        `guard_probability` (that) and, where there are any, `guard_flags`. A blocked one has `guard_reason` and, if the guard
        gave them, `guard_probabilities` (of every policy).

    Raises:
        InputError: the guard cannot check any prompt any longer. What it has found until then is kept.
        UsageError: `batch_size` is less than one.
    """
    if batch_size < 1:
        raise UsageError(f"batch size must be at least 1, got {batch_size}")
    kept = kept or KeptFindings(None, guard)
    tally = tally if tally is not None else Tally()
    progress.start(None, f"checking prompts with {guard.name}")
    for batch in batches(records, batch_size * at_once()):
        found = _findings([record["prompt"] for record in batch], guard, kept, batch_size, tally)
        for record in batch:
            yield _checked(record, found[record["prompt"]], guard, rules, tally)
        progress.advance(len(batch), blocked=f"{tally.blocked}/{tally.checked}")
    progress.close()


def serve_guard(guard: Guard) -> None:
    """Checks what the first process hands out, until it is done. For each of the other processes."""
    serve(guard.check)


def _findings(
    prompts: Sequence[str], guard: Guard, kept: KeptFindings, size: int, tally: Tally
) -> dict[str, Finding]:
    """The findings on some prompts; the guard is asked about those that are not known, each once."""
    found: dict[str, Finding] = {}
    unknown: list[str] = []
    for prompt in dict.fromkeys(prompts):
        earlier = kept.get(prompt)
        if not prompt.strip():
            found[prompt] = Finding(None, "the prompt is empty")
        elif earlier is None:
            unknown.append(prompt)
        else:
            found[prompt] = earlier
            tally.earlier += kept.is_earlier(prompt)
    parts = [unknown[first : first + size] for first in range(0, len(unknown), size)]
    answers = compute_all(parts, guard.check) if parts else []
    fault: SanactlError | None = None
    for part, answer in zip(parts, answers, strict=True):
        if isinstance(answer, SanactlError):
            fault = fault or answer
            continue
        new = dict(zip(part, answer, strict=True))
        kept.put(new)
        found |= new
    if fault is not None:
        raise fault
    return found


def _checked(record: Record, found: Finding, guard: Guard, rules: Rules, tally: Tally) -> Checked:
    fields: dict[str, Any] = {"guard": guard.name}
    reason, label = found.fault, "a fault"
    if found.probabilities is not None:
        named = dict(zip(guard.policies, (float(f"{p:.6g}") for p in found.probabilities), strict=True))
        policy = max(named, key=lambda name: named[name])
        fields |= {"guard_policy": policy} if named[policy] else {}
        fields["guard_probability"] = named[policy]
        # Not `>`: a comparison with NaN is false, and has to block.
        if not max(found.probabilities) <= rules.threshold:
            reason, label = f"probability {named[policy]:.3g} above {rules.threshold:g}", policy
            fields["guard_probabilities"] = named
    if is_non_english(record["prompt"]):
        fields["guard_flags"] = ["non-English"]
        if reason is None and rules.non_english == "block":
            reason, label = "the prompt is not in English letters", "its letters"
    if reason is not None:
        fields["guard_reason"] = reason
    tally.checked += 1
    tally.blocked += reason is not None
    tally.flagged += reason is None and "guard_flags" in fields
    tally.unsure += found.probabilities is not None and found.mass < _UNSURE
    if reason is not None:
        tally.reasons[label] += 1
    rest = {name: value for name, value in record.items() if name not in _FIELDS}
    return Checked({**rest, **fields}, reason is None)
