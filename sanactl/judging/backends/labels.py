"""What a judge's config says about the labels that it was trained on."""

from __future__ import annotations

__all__ = ["LABELS", "joined_labels", "split_labels"]

# The entry of a model's config that names the detector whose labels it was trained on.
LABELS = "judge_labels"
_BETWEEN = ", "


def joined_labels(sources: tuple[str, ...]) -> str:
    """The names of several detectors as one entry."""
    return _BETWEEN.join(sorted(sources))


def split_labels(entry: str) -> set[str]:
    """The detectors of an entry, and the entry itself, since a detector's name may have a comma."""
    return {entry, *entry.split(_BETWEEN)}
