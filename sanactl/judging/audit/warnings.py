"""What a reader of a judge's figures must know of the records that they are from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sanactl.judging.audit.gather import Gathered, Judged
from sanactl.judging.backends.labels import split_labels

__all__ = ["few_prompts", "warnings_of"]

# Prompts. Images of one prompt are alike, so it is their number that counts.
_ENOUGH = 30
_LEARNED = "judge {} learned from, or is,"


def warnings_of(gathered: Gathered, judged: Sequence[Judged]) -> Iterator[str]:
    """Lines about images that a judge has selected, and about judges that share their source with the labels."""
    partly = gathered.partly()
    if partly:
        yield (
            f"warning: of {partly:,} prompts some images are missing, as after a selection; figures of selected images"
            " say nothing of all (judge --all passes all on)"
        )
    alike: dict[str, list[str]] = {}
    for one in judged:
        if shared := _sources(one) & set(gathered.sources):
            alike.setdefault(", ".join(sorted(shared)), []).append(one.name)
    for shared_by, (first, *others) in alike.items():
        who = (
            f"judges {', '.join([first, *others])} learned from, or are,"
            if others
            else _LEARNED.format(first)
        )
        yield (
            f"warning: {who} the detector that labelled these images ({shared_by}); the figures do not show whether"
            " people would agree, which is the circularity of the paper's own scores"
        )


def few_prompts(prompts: int) -> str:
    """A line about a calibration from few prompts; empty for enough of them."""
    if prompts >= _ENOUGH:
        return ""
    return (
        f"warning: {prompts} prompt{'s' * (prompts != 1)} {'are' if prompts != 1 else 'is'} few for a calibration; with"
        f" fewer than {_ENOUGH}, chance decides much of its slope and intercept"
    )


def _sources(judged: Judged) -> set[str]:
    """The detectors that a judge, or one of several, has its labels from."""
    every = [each for s in judged.settings for each in (s, *(s.get("judges") or ()))]
    named = [str(each["labels"]) for each in every if each.get("labels") is not None]
    return set().union(*map(split_labels, named))
