"""The score records of `eval judge`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sanactl.judging.audit.figures import MASS_AT, Figure, Figures, cross_fitted, log_odds
from sanactl.judging.audit.flips import flip_rates
from sanactl.judging.audit.gather import Gathered, Judged
from sanactl.records.records import Record
from sanactl.records.scores import new_score

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["PROTOCOLS", "figure_fields", "judge_scores"]

_BOOTSTRAP = "95 % by drawing prompts anew"
_CROSS = "calibrated by Platt's two parameters, fitted on other prompts"
PROTOCOLS = {
    "auc": "a right image above a wrong one, over all prompts",
    "pair_accuracy": "a right image above a wrong one of the same prompt, mean over prompts with both",
    "balanced_accuracy": "mean of the shares of right and wrong images that are judged as such",
    "brier": "mean of (probability - truth)^2",
    "calibration_error": "15 bins of equal mass, mean of |probability - share right|",
    "one": "share right of an image at random, prompts with two images or more",
    "ceiling": "share of prompts with a right image, prompts with two images or more",
    "winner_precision": "share right of the judge's best image of a prompt",
    "gap_closed": "(best - one) / (ceiling - one)",
    "winner_expected": "mean probability of the judge's best image of a prompt",
    "winners_curse": "mean probability of the best images less the share of them that is right",
}
_KINDS = {"_calibrated": _CROSS, "_given": "calibrated as the records say"}


def judge_scores(gathered: Gathered, judged: Judged) -> Iterator[Record]:
    """All score records of a judge; those of the metric `judge_reliability` and `judge_answer_mass` have curves.

    Args:
        gathered: what the verdicts on images without truth are taken from, for `judge_flips`.
        judged: the verdicts on images with truth.
    """
    import numpy as np

    crossed = cross_fitted(log_odds(judged), judged.truth, judged.prompts, judged.groups)
    every = Figures(judged, crossed, np.ones(len(judged.prompts), bool))
    found = every.measure()
    by_tag = {tag: (part, part.measure()) for tag, part in _parts(judged, crossed)}
    about = _about(gathered, judged, every)
    for name, figure in found.items():
        if name.startswith("mass "):
            continue
        kind = next((kind for kind in _KINDS if name.endswith(kind)), "")
        said = PROTOCOLS[name.removesuffix(kind)] + (f", {_KINDS[kind]}" if kind else "")
        tasks = {
            tag: {**figure_fields(of_tag[name]), "images": part.images}
            for tag, (part, of_tag) in by_tag.items()
        }
        value = figure_fields(figure)
        if tasks:
            value["tasks"] = tasks
        yield new_score(f"judge_{name}", **value, protocol=f"{said}, {_BOOTSTRAP}", **about)
    yield _mass(found, about)
    yield _reliability(every, about)
    rates = flip_rates(gathered.opinions[judged.name])
    for kind, (figure, images) in rates.items():
        yield new_score(
            "judge_flips",
            **figure_fields(figure),
            difference=kind,
            protocol=f"share of pairs of verdicts on an image that disagree, {_BOOTSTRAP}",
            **{**about, "images": images},
        )


def _parts(judged: Judged, crossed: Any) -> Iterator[tuple[str, Figures]]:
    import numpy as np

    tags: NDArray[np.str_] = np.array(judged.tags)
    names = [tag for tag in dict.fromkeys(judged.tags) if tag]
    if len(names) > 1:
        for name in names:
            yield name, Figures(judged, crossed, tags == name)


def _about(gathered: Gathered, judged: Judged, every: Figures) -> dict[str, Any]:
    """What was judged by whom, and where the truth is from."""
    found: dict[str, Any] = {"judge": judged.name}
    for name in ("dialogue", "dtype"):
        values = {str(s[name]) for s in judged.settings if s.get(name) is not None}
        if values:
            found[name] = ", ".join(sorted(values))
    found["truth"] = gathered.label
    if gathered.sources:
        found["detector"] = ", ".join(gathered.sources)
    return {**found, "images": every.images, "prompts": every.prompts}


def _mass(found: Mapping[str, Figure], about: Mapping[str, Any]) -> Record:
    points = [(at, found[f"mass {at}"]) for at in MASS_AT]
    return new_score(
        "judge_answer_mass",
        **figure_fields(found["mass 0.5"]),
        axis="quantile",
        curves={"answer mass": _points(points)},
        protocol=f"P(yes) + P(no), the value is the median, {_BOOTSTRAP}",
        **about,
    )


def _reliability(every: Figures, about: Mapping[str, Any]) -> Record:
    names = {"": "as it is", "calibrated": "calibrated on other prompts", "given": "calibrated as given"}
    return new_score(
        "judge_reliability",
        None,
        axis="predicted probability",
        curves={names[kind]: _points(points) for kind, points in every.curves().items()},
        protocol=f"share right in 15 bins of equal mass, {_BOOTSTRAP}",
        **about,
    )


def _points(points: Sequence[tuple[float, Figure]]) -> list[Record]:
    return [
        {"at": _rounded(at), **figure_fields(figure)} for at, figure in points if figure.value is not None
    ]


def figure_fields(figure: Figure) -> dict[str, Any]:
    """A figure as the fields of a score."""
    ci = None if figure.ci is None else [_rounded(end) for end in figure.ci]
    return {"value": None if figure.value is None else _rounded(figure.value), "ci": ci}


def _rounded(value: float) -> float:
    return round(float(value), 6)
