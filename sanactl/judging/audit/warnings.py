"""What a reader of a judge's figures must know of the records that they are from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sanactl.judging.audit.gather import Gathered, Judged
from sanactl.judging.backends.labels import split_labels

__all__ = ["warnings_of"]


def warnings_of(gathered: Gathered, judged: Sequence[Judged]) -> Iterator[str]:
    """Lines about images that a judge has selected, and about judges that share their source with the labels."""
    partly = gathered.partly()
    if partly:
        yield (
            f"warning: of {partly:,} prompts some images are missing, as after a selection; figures of selected images"
            " say nothing of all (judge --all passes all on)"
        )
    for one in judged:
        shared = _sources(one) & set(gathered.sources)
        if shared:
            yield (
                f"warning: judge {one.name} learned from, or is, the detector that labelled these images"
                f" ({', '.join(sorted(shared))}); the figures do not show whether people would agree, which is the"
                " circularity of the paper's own scores"
            )


def _sources(judged: Judged) -> set[str]:
    """The detectors that a judge, or one of several, has its labels from."""
    every = [each for s in judged.settings for each in (s, *(s.get("judges") or ()))]
    named = [str(each["labels"]) for each in every if each.get("labels") is not None]
    return set().union(*map(split_labels, named))
