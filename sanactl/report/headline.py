"""The question that a run answers and its answer in one sentence, made from lineages and scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sanactl.report.labels import by_metric, is_selected, said_of_selection, score_name
from sanactl.report.run import STEP, RunRecords, newest
from sanactl.report.text import counted, finite, interval_of, plain, short_name

__all__ = ["Headline", "find_headline", "main_scores"]

Record = dict[str, Any]
_LOWER_IS_BETTER = {"fid", "kid"}
_HIGHER_IS_BETTER = {"geneval", "dpg", "clip", "vqa", "judge"}


@dataclass(frozen=True)
class Headline:
    """The first lines of a page.

    Attributes:
        question, answer: a sentence each.
        tone: "good" for a yes, "bad" for a no, "" where the scores do not decide.
        more: further sentences.
        chain: the checkpoints that it is about, oldest first.
    """

    question: str
    answer: str
    tone: str = ""
    more: Sequence[str] = ()
    chain: Sequence[str] = ()


def find_headline(run: RunRecords) -> Headline:
    """What the run's scores say about its newest checkpoint and the one that it came from."""
    scores = main_scores(run)
    if not scores:
        return Headline("What is in this run?", _inventory(run), chain=_images_of(run))
    chain = _chain(run, scores)
    more = _best_of(run, chain[-1])
    if len(chain) > 1:
        return _compared(run, scores, chain, more)
    best = sorted(scores.values(), key=lambda r: _better(r) or 0.0)
    chain = [str(r["checkpoint"]) for r in best]
    first = best[-1]
    if len(scores) == 1 or _better(first) is None or len({_selection(r) for r in best}) > 1:
        values = "; ".join(
            f"{_of(r)} for {short_name(r.get('checkpoint'))}" for r in list(scores.values())[:8]
        )
        return Headline(f"What is the score {by_metric(best[0])}?", f"{values}.", more=more, chain=chain)
    second = best[-2]
    answer = f"{_name(first)}: {_of(first)} against {_of(second)} for {_name(second)}{_said_of_intervals(first, second)}."
    return Headline(
        f"Which of {len(scores)} checkpoints is best {by_metric(best[0])}?", answer, more=more, chain=chain
    )


# What scores must have in common to stand beside each other.
_MEASURE = ("metric", "detector", "detector_digest", "model", "model_digest")


def main_scores(run: RunRecords) -> dict[str, Record]:
    """The score of each checkpoint on one metric, by one detector: those with tasks and the most checkpoints. All
    images count, not only those that a judge selected, if there is such a score."""
    found: dict[str, dict[str, Record]] = {}
    for record in newest(run.scores):
        name = record.get("checkpoint")
        if record["metric"] == STEP or finite(record.get("value")) is None or not isinstance(name, str):
            continue
        if record.get("curves"):
            continue
        known = found.setdefault(repr([record.get(f) for f in _MEASURE]), {})
        if name not in known or _rank(record) <= _rank(known[name]):
            known.pop(name, None)
            known[name] = record
    rank = {
        metric: (
            any(r.get("tasks") for r in known.values()),
            len(known),
            sum(not is_selected(r) for r in known.values()),
        )
        for metric, known in found.items()
    }
    best = max(rank.values(), default=None)
    metrics = [metric for metric in found if rank[metric] == best]
    if not metrics:
        return {}
    chosen = found[metrics[-1]]
    # On the prompts that the first was measured on: scores on other prompts do not compare.
    prompts = next(iter(chosen.values())).get("prompts")
    alike = {_measurement(r): r for r in run.scores if r.get("prompts") == prompts and not r.get("curves")}
    return {name: alike.get(_measurement(r), r) for name, r in chosen.items()}


def _measurement(record: Record) -> str:
    """The same for two scores of a checkpoint that differ in their prompts alone."""
    return repr([*(record.get(f) for f in (*_MEASURE, "checkpoint", "digest")), _rank(record)])


def _rank(record: Record) -> int:
    return int(is_selected(record))


def _selection(record: Record) -> str:
    return str(record["selection"]) if is_selected(record) else "single"


def _chain(run: RunRecords, scores: Mapping[str, Record]) -> list[str]:
    """The scored checkpoints that the run's result came from, oldest first, and the result: that with the longest
    lineage, and of several such the one with the fewest blocks."""
    lineages, facts = run.lineages.entries, run.lineages.facts

    def weight(item: tuple[int, str]) -> tuple[int, int, int]:
        place, name = item
        blocks = facts[name].blocks if name in facts else None
        return len(lineages.get(name, ())), -(blocks or 0), place

    final = max(enumerate(scores), key=weight)[1]
    digests: dict[str, str] = {d: n for n, d in run.lineages.digests.items() if n in scores}
    digests.update({str(r["digest"]): n for n, r in scores.items() if isinstance(r.get("digest"), str)})
    chain: dict[str, None] = {}
    for entry in lineages.get(final, ()):
        parents = entry.get("parents") if isinstance(entry, dict) else None
        if isinstance(parents, list) and parents and isinstance(parents[0], dict):
            name = digests.get(str(parents[0].get("digest")))
            if name is not None and name != final:
                chain[name] = None
    return [*chain, final]


def _compared(
    run: RunRecords, scores: Mapping[str, Record], chain: Sequence[str], more: Sequence[str]
) -> Headline:
    """The result beside the checkpoint that all began with."""
    base, final = scores[chain[0]], scores[chain[-1]]
    steps = _steps(run, chain)
    what, keeps = _question(steps)
    question = f"Does {what} {'keep' if keeps else 'raise'} the {score_name(final)}?"
    trained = steps[-1].get("arguments") if steps and steps[-1].get("command") == "finetune" else None
    count = trained.get("steps") if isinstance(trained, dict) else None
    after = f" after {counted(count, 'step')} of training" if type(count) is int else ""
    verdict, tone = _verdict(final, base, keeps)
    numbers = f"{_of(final)}{after} against {_of(base)} for {_name(base)}{_said_of_intervals(final, base)}"
    between = [f"{_of(scores[name])} for {_name(scores[name])}" for name in chain[1:-1]]
    others = [f"{_of(r)} for {_name(r)}" for name, r in scores.items() if name not in chain]
    if others:
        more = [f"Also scored: {', '.join(others[:6])}{' …' if len(others) > 6 else ''}.", *more]
    if between:
        more = [f"On the way: {', '.join(between)}.", *more]
    return Headline(question, f"{verdict}{numbers}.", tone, more, chain)


def _steps(run: RunRecords, chain: Sequence[str]) -> list[Mapping[str, Any]]:
    """The lineage's entries that lead from the chain's first checkpoint to its last."""
    entries: list[Mapping[str, Any]] = [
        e for e in run.lineages.entries.get(chain[-1], ()) if isinstance(e, dict)
    ]
    return entries[len(run.lineages.entries.get(chain[0], ())) :]


def _question(steps: Sequence[Mapping[str, Any]]) -> tuple[str, bool]:
    """What was done, and whether one hopes to keep the score by it rather than to raise it."""
    done = {str(step.get("command")): step for step in steps}
    for command, words in (("prune", "pruning"), ("grow", "growing")):
        if command in done:
            blocks = done[command].get("blocks")
            return words + (f" to {blocks} blocks" if type(blocks) is int else ""), command == "prune"
    return ("training", False) if "finetune" in done else ("conversion", True)


def _better(record: Record) -> float | None:
    """The value, larger for a better score; None where it is not known which way is better."""
    metric, value = str(record["metric"]).lower(), finite(record.get("value"))
    if value is None:
        return None
    if metric in _LOWER_IS_BETTER:
        return -value
    return value if metric in _HIGHER_IS_BETTER or record.get("tasks") else None


def _verdict(final: Record, base: Record, keeps: bool) -> tuple[str, str]:
    """ "Yes: " and its tone. Where the intervals overlap, a small gain is no yes and a small loss no no."""
    one, other = _better(final), _better(base)
    if _selection(final) != _selection(base):
        return "Not comparable: ", ""
    if one is None or other is None:
        return "", ""
    overlap = _overlap(final, base)
    if keeps:
        if one >= other:
            return "Yes: ", "good"
        return ("Not decided: ", "") if overlap else ("No: ", "bad")
    if one <= other:
        return "No: ", "bad"
    return ("Not shown: ", "") if overlap else ("Yes: ", "good")


def _overlap(one: Record, other: Record) -> bool | None:
    """Whether the intervals of two scores overlap, None where one has none."""
    first, second = interval_of(one.get("ci")), interval_of(other.get("ci"))
    return None if first is None or second is None else first[0] <= second[1] and second[0] <= first[1]


def _said_of_intervals(one: Record, other: Record) -> str:
    overlap = _overlap(one, other) if _selection(one) == _selection(other) else None
    text = (
        "" if overlap is None else "; the intervals overlap" if overlap else "; the intervals do not overlap"
    )
    if one.get("prompts") != other.get("prompts"):
        text += " (other prompts)"
    return text


def _best_of(run: RunRecords, name: str) -> list[str]:
    """What the choice among several images adds."""
    for record in reversed(newest(run.scores)):
        curves = record.get("curves")
        points = (
            curves.get("judge") if isinstance(curves, dict) and record.get("checkpoint") == name else None
        )
        ends = [p for p in points if isinstance(p, dict)] if isinstance(points, list) else []
        known = [(finite(p.get("at")), finite(p.get("value"))) for p in ends]
        good = sorted((at, value) for at, value in known if at is not None and value is not None)
        if len(good) > 1:
            (_, first), (at, last) = good[0], good[-1]
            return [f"Best of {at:g} images by the judge: {last:.2f}, against {first:.2f} for one image."]
    return []


def _inventory(run: RunRecords) -> str:
    """What there is, where nothing was scored."""
    said = [
        counted(count, what)
        for count, what in (
            (len(run.lineages.entries) + len(run.lineages.faults), "checkpoint"),
            (len(run.images), "image"),
            (len(run.blocks), "block measurement"),
        )
        if count
    ]
    return (
        ", ".join(said) or "Nothing yet"
    ) + "; no scores of checkpoints: sanactl eval geneval writes them."


def _images_of(run: RunRecords) -> list[str]:
    return list(dict.fromkeys(str(r.get("checkpoint")) for r in run.images))


def _of(record: Record) -> str:
    """A score's value; of selected images, that it is theirs."""
    value = finite(record.get("value")) or 0.0
    shown = f"{value:.2f}" if abs(value) < 1000 else f"{value:.4g}"
    selected = said_of_selection(record)
    return f"{shown} ({selected})" if selected else shown


def _name(record: Record) -> str:
    return plain(short_name(record.get("checkpoint")), 60)
