"""Whether a judge answers the question: the share of images for which it puts its probability on yes or no."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sanactl.files.progress import Progress
from sanactl.judging.tournament import Verdict

__all__ = ["Answers"]

# Below this P(yes) + P(no) a judge has not answered the question.
LITTLE_MASS = 0.5


class Answers:
    """Counts the answers of a judge, or of each of several.

    Args:
        name: of the judge, where it is one.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._all: Counter[str] = Counter()  # images that each judge was asked about
        self._unanswered: Counter[str] = Counter()  # those with little probability on yes and no

    def count(self, verdicts: Sequence[Verdict]) -> None:
        """Takes in verdicts."""
        for v in verdicts:
            several = (v.details or {}).get("verdicts")
            masses = (
                [(each["judge"], each["answer_mass"]) for each in several]
                if several
                else [(self._name, v.answer_mass)]
            )
            for name, mass in masses:
                self._all[name] += 1
                self._unanswered[name] += mass < LITTLE_MASS

    def warn(self, progress: Progress) -> None:
        """Says so, for each judge, if it has not answered the question for most images."""
        for name, unanswered in self._unanswered.items():
            if 2 * unanswered > self._all[name]:
                progress.note(
                    f"warning: judge {name} puts less than half of its probability on yes and no for {unanswered:,} of"
                    f" {self._all[name]:,} images; it does not answer the question, and its ranking may mean nothing"
                    " (another judge or dialogue may do better)"
                )
