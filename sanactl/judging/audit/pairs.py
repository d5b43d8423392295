"""`eval judge --pairs`: a judge chooses between two images of a prompt, in both orders.

A judge with a position bias prefers the image that it sees first (or second), whatever the images show. SANA-1.5 reports
it of GPT-4o and Gemini (section 2.5), and asks about single images for that reason.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sanactl.errors import UsageError
from sanactl.files.images import read_image
from sanactl.files.progress import Progress
from sanactl.judging.audit.figures import as_figures
from sanactl.judging.audit.gather import label_of
from sanactl.judging.audit.scores import figure_fields
from sanactl.judging.check import check_verdicts
from sanactl.judging.protocol import Judge
from sanactl.judging.settings import settings_of
from sanactl.judging.tournament import Verdict
from sanactl.records.prompts import as_meant
from sanactl.records.records import Record
from sanactl.records.scores import new_score

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["pair_scores", "pairs_of"]

_PROTOCOLS = {
    "position_first": "share of answers that name the image shown first; 0.5 without a position bias",
    "position_probability": "mean probability of the image shown first",
    "consistency": "share of pairs where both orders choose the same image",
    "choice_accuracy": "share of choices of the right image, of pairs with a right and a wrong one",
    "choice_accuracy_both": "the same by the mean of both orders",
    "choice_mass": "probability of an answer that names one of the images, mean",
}
LITTLE_MASS = 0.5


@dataclass(frozen=True)
class PairOf:
    """Two records of a prompt, and their labels where they have one."""

    one: Record
    other: Record
    truth: tuple[bool | None, bool | None]

    @property
    def differs(self) -> bool:
        return None not in self.truth and self.truth[0] != self.truth[1]


def pairs_of(records: Sequence[Record], label: str, most: int) -> list[PairOf]:
    """At most `most` pairs of each prompt, first those of a right and a wrong image, else drawn by a hash of their paths.

    Args:
        records: of images; one of each path counts.
        label: the field with the truth.

    Raises:
        InputError: a label is no yes or no.
    """
    prompts: dict[str, dict[str, Record]] = {}
    for record in records:
        prompts.setdefault(str(record["prompt"]), {}).setdefault(str(record["path"]), record)
    found = []
    for prompt, images in prompts.items():
        labels = {path: label_of(record, label) for path, record in images.items()}
        ranked = sorted(
            islice(combinations(images, 2), 100_000),
            key=lambda pair: (
                None in (labels[pair[0]], labels[pair[1]]) or labels[pair[0]] == labels[pair[1]],
                hashlib.sha256("\0".join((prompt, *pair)).encode("utf-8", "surrogateescape")).digest(),
            ),
        )
        found += [PairOf(images[a], images[b], (labels[a], labels[b])) for a, b in ranked[:most]]
    return found


def pair_scores(
    pairs: Sequence[PairOf], judge: Judge, batch_size: int, progress: Progress
) -> Iterator[Record]:
    """Asks about each pair in both orders; the score records.

    Raises:
        UsageError: the judge cannot compare two images.
        InputError: an image cannot be read, or the judge cannot take two.
    """
    import numpy as np

    from sanactl.scoring.intervals import bootstrap

    choose = getattr(judge, "choose", None)
    if choose is None:
        raise UsageError(
            f"judge {judge.name} cannot choose between two images",
            hint="vision-language models of transformers and servers can (--judge vlm:FOLDER)",
        )
    progress.start(len(pairs), f"asking {judge.name} about pairs in both orders")
    verdicts: list[tuple[Verdict, Verdict]] = []
    for start in range(0, len(pairs), batch_size):
        batch = pairs[start : start + batch_size]
        images = [(read_image(Path(p.one["path"])), read_image(Path(p.other["path"]))) for p in batch]
        asked = [as_meant(p.one) for p in batch]
        orders = [choose(images, asked), choose([(b, a) for a, b in images], asked)]
        for found in orders:
            check_verdicts(judge.name, found, asked)
        verdicts += zip(*orders, strict=True)
        progress.advance(len(batch))
    progress.close()
    names = list(dict.fromkeys(str(p.one["prompt"]) for p in pairs))
    number_of = {name: n for n, name in enumerate(names)}
    groups = np.array([number_of[str(p.one["prompt"])] for p in pairs])
    values = np.array([_values(p, v) for p, v in zip(pairs, verdicts, strict=True)])
    known = ~np.isnan(values)
    sums, counts = (
        np.stack([np.bincount(groups, column, len(names)) for column in table.T], axis=1)
        for table in (np.where(known, values, 0.0), known.astype(np.float64))
    )

    def means(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        with np.errstate(invalid="ignore", divide="ignore"):
            found: NDArray[np.float64] = (weights @ sums) / (weights @ counts)
        return found

    figures = dict(zip(_PROTOCOLS, as_figures(bootstrap(means, len(names))), strict=True))
    first, mass = figures["position_first"], figures["choice_mass"].value
    # Answers that are all alike have no interval.
    low, high = first.ci or ((first.value, first.value) if first.value in (0, 1) else (0, 1))
    if first.value is not None and not low <= 0.5 <= high:
        progress.note(
            f"warning: judge {judge.name} names the {'first' if first.value > 0.5 else 'second'} image in"
            f" {max(first.value, 1 - first.value):.0%} of its answers: where an image stands decides, and not only the image"
        )
    elif (consistency := figures["consistency"].value) is not None and consistency < 0.5:
        progress.note(
            f"warning: judge {judge.name} chooses the same image in both orders for {consistency:.0%} of the pairs:"
            " the order decides, though neither place is favoured over all prompts"
        )
    if mass is not None and mass < LITTLE_MASS:
        progress.note(
            f"warning: judge {judge.name} puts {mass:.2g} of its probability on naming one of the images; it does not"
            " answer the question"
        )
    about: dict[str, Any] = {
        "judge": judge.name,
        **{k: v for k, v in settings_of(judge).items() if k == "dtype"},
        "pairs": len(pairs),
        "pairs_of_right_and_wrong": sum(p.differs for p in pairs),
        "prompts": len(names),
    }
    for name, figure in figures.items():
        protocol = f"{_PROTOCOLS[name]}, each pair asked in both orders, 95 % by drawing prompts anew"
        yield new_score(f"judge_{name}", **figure_fields(figure), protocol=protocol, **about)


def _values(pair: PairOf, verdicts: tuple[Verdict, Verdict]) -> list[float]:
    """The figures of one pair, in the order of `_PROTOCOLS`; NaN where its labels are alike or missing."""
    from sanactl.judging.calibration import IDENTITY

    shown, turned = (IDENTITY.probability(v) for v in verdicts)
    chosen = [_share(shown), 1 - _share(turned)]  # of the pair's first image, in both orders
    right = right_both = float("nan")
    if pair.differs:
        truth = float(bool(pair.truth[0]))
        right = sum(1 - abs(c - truth) for c in chosen) / 2
        right_both = 1 - abs(_share((shown + 1 - turned) / 2) - truth)
    return [
        (_share(shown) + _share(turned)) / 2,
        (shown + turned) / 2,
        float(chosen[0] == chosen[1] and chosen[0] != 0.5),
        right,
        right_both,
        sum(v.answer_mass for v in verdicts) / 2,
    ]


def _share(p: float) -> float:
    """1 for a choice of the first image, 0 for the second, a half for neither."""
    return 0.5 if p == 0.5 else float(p > 0.5)
