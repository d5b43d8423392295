"""From a judge's answer to the probability that the image is right: two parameters, fitted on labelled images.

    p = sigmoid(slope * (log P(yes) - log P(no)) + intercept)

Platt, "Probabilistic outputs for support vector machines" (1999), with his smoothed targets. Slope 1 and intercept 0
are the judge as it is: P(yes) / (P(yes) + P(no)).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sanactl.errors import InputError, UsageError
from sanactl.files.content import json_digest
from sanactl.files.regular import open_regular
from sanactl.judging.means import log_mean
from sanactl.judging.protocol import Judge
from sanactl.judging.settings import judge_digest, judges_of
from sanactl.judging.tournament import Verdict
from sanactl.records.fields import TEXT, Field, check_fields, list_of, number, whole
from sanactl.records.jsonl import NOT_UTF8, dump_json, parse_json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "IDENTITY", "Calibration", "calibrate", "calibrations_of", "fit", "prompts_digest",
    "read_calibrations", "write_calibrations",
]  # fmt: skip

KIND = "judge-calibration"
_MAX_BYTES = 2**20
_FIELDS = {
    "judge": TEXT,
    "judge_digest": TEXT,
    "slope": number(),
    "intercept": number(),
    "prompts": whole(),
    "images": whole(),
    "prompts_digest": TEXT,
}
_LARGEST = 1e9  # log-odds; records have no infinite numbers
# Steps of Newton's method; ten are usual.
_STEPS = 100


@dataclass(frozen=True)
class Calibration:
    """Two parameters, and what they were fitted on.

    Attributes:
        slope, intercept: see the top of this module. A slope above 0 keeps the order of images.
        judge: its name in records; "" for any.
        judge_digest: of its weights and dialogue (`sanactl.judging.settings.judge_digest`); "" where it is not known.
        prompts, images: how many it was fitted on.
        prompts_digest: of these prompts (`prompts_digest`).
    """

    slope: float
    intercept: float
    judge: str = ""
    judge_digest: str = ""
    prompts: int = 0
    images: int = 0
    prompts_digest: str = ""

    def probability(self, verdict: Verdict) -> float:
        """The probability that the image is right, in [0, 1]."""
        return math.exp(self.logs(verdict.yes_logprob, verdict.no_logprob)[0])

    def logs(self, yes_logprob: float, no_logprob: float) -> tuple[float, float]:
        """The logarithms of the probabilities that the image is right and that it is wrong, exact near 0 and 1."""
        z = self.slope * (yes_logprob - no_logprob) + self.intercept
        z = min(max(z, -_LARGEST), _LARGEST)
        rest = math.log1p(math.exp(-abs(z)))
        return min(z, 0.0) - rest, min(-z, 0.0) - rest


IDENTITY = Calibration(1.0, 0.0)


def fit(log_odds: NDArray[np.float64], truth: NDArray[np.bool_]) -> tuple[float, float]:
    """Slope and intercept of the largest likelihood.

    The targets are Platt's: (N+ + 1) / (N+ + 2) for a right image and 1 / (N- + 2) for a wrong one. So the maximum is
    finite where yes and no are separated, too.

    Args:
        log_odds: float64 [N], log P(yes) - log P(no), finite.
        truth: bool [N].

    Returns:
        The slope, which is negative for a judge that is worse than chance, and the intercept. Where all log-odds are
        equal nothing tells a slope, and it is 1.

    Raises:
        ValueError: there are no images.
    """
    import numpy as np

    if not len(log_odds):
        raise ValueError("a calibration needs at least one image")
    right = int(truth.sum())
    targets = np.where(truth, (right + 1) / (right + 2), 1 / (len(truth) - right + 2))
    unit = float(np.abs(log_odds).max()) or 1.0  # squares of the largest numbers would overflow
    log_odds = log_odds / unit
    mean, scale = float(log_odds.mean()), float(log_odds.std())
    rate = float(targets.mean())
    if scale <= 1e-12 * max(1.0, abs(mean)):
        return 1.0, math.log(rate / (1 - rate)) - unit * mean
    x = np.stack([(log_odds - mean) / scale, np.ones(len(log_odds))], axis=1)
    w = np.array([0.0, math.log(rate / (1 - rate))])
    loss = _loss(x, targets, w)
    for _ in range(_STEPS):
        p = _sigmoid(x @ w)
        gradient = x.T @ (p - targets)
        if np.abs(gradient).max() < 1e-10 * len(x):
            break
        hessian = x.T @ (x * (p * (1 - p))[:, None]) + 1e-12 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        size = 1.0
        # Newton's step may be too long far from the maximum; the loss is convex, so a shorter one lowers it.
        while (new := _loss(x, targets, w - size * step)) > loss - 1e-4 * size * float(gradient @ step):
            size /= 2
            if size < 1e-10:
                break
        if size < 1e-10:
            break
        w, loss = w - size * step, new
    return float(w[0]) / scale / unit, float(w[1]) - float(w[0]) / scale * mean


def _sigmoid(z: NDArray[np.float64]) -> NDArray[np.float64]:
    import numpy as np

    return np.exp(-np.logaddexp(0.0, -z))


def _loss(x: NDArray[np.float64], targets: NDArray[np.float64], w: NDArray[np.float64]) -> float:
    """Cross-entropy of the targets."""
    import numpy as np

    z = x @ w
    return float((np.logaddexp(0.0, z) - targets * z).sum())


def calibrate(verdict: Verdict, calibrations: Sequence[Calibration]) -> Verdict:
    """A verdict with the calibrated probability in its details, as `calibrated`.

    Args:
        verdict: of one judge, or of several with each judge's own in its details (`mean_verdict`).
        calibrations: one for each judge, in their order.

    Returns:
        Of one judge the same verdict, so that its ranking stays. Of several, the verdict of the mean of their
        calibrated probabilities; each of `verdicts` gets its own.
    """
    details = dict(verdict.details or {})
    several = details.get("verdicts")
    if not several:
        (calibration,) = calibrations
        details["calibrated"] = _nine(calibration.probability(verdict))
        return Verdict(verdict.verdict, verdict.yes_logprob, verdict.no_logprob, verdict.mass, details)
    logs = [c.logs(v["yes_logprob"], v["no_logprob"]) for c, v in zip(calibrations, several, strict=True)]
    yes, no = (log_mean(side) for side in zip(*logs, strict=True))
    details["verdicts"] = [
        {**v, "calibrated": _nine(math.exp(log))} for v, (log, _) in zip(several, logs, strict=True)
    ]
    details["calibrated"] = _nine(math.exp(yes))
    return Verdict("yes" if yes > no else "no", yes, no, verdict.answer_mass, details)


def _nine(value: float) -> float:
    return float(f"{value:.9g}")


def prompts_digest(prompts: Iterable[str]) -> str:
    """sha256 of a set of prompts, whatever their order and number of images."""
    return "sha256:" + json_digest(sorted(set(prompts)))


def calibrations_of(judge: Judge, found: Sequence[Calibration]) -> list[Calibration]:
    """The calibration of each judge of a judge (of one, or of several), in their order.

    Raises:
        UsageError: there is none for one of them, or it was fitted for other weights or another dialogue, or one is
            for a judge that is not there.
    """
    judges = judges_of(judge)
    names = [each.name for each in judges]
    by_name: dict[str, Calibration] = {}
    for calibration in found:
        name = calibration.judge or names[0]
        if name not in names:
            raise UsageError(
                f"the calibration is of judge {name}, and not of {' or '.join(names)}",
                hint="sanactl eval judge RECORDS --calibration-out FILE fits one",
            )
        if name in by_name:
            raise UsageError(f"there are two calibrations of judge {name}")
        by_name[name] = calibration
    for each in judges:
        if each.name not in by_name:
            raise UsageError(
                f"there is no calibration of judge {each.name}", hint="all judges need one, or none"
            )
        known = by_name[each.name].judge_digest
        if known and known != judge_digest(each):
            raise UsageError(
                f"the calibration of judge {each.name} is of other weights or another dialogue",
                hint="sanactl eval judge RECORDS --calibration-out FILE fits one for this judge",
            )
    return [by_name[name] for name in names]


def write_calibrations(path: Path, calibrations: Sequence[Calibration], *, force: bool = False) -> None:
    """Writes a file of calibrations, whole or not at all.

    Raises:
        InputError: a slope is not above 0.
        OutputExistsError: the file is there.
    """
    from sanactl.files.atomic import atomic_path

    for calibration in calibrations:
        _check(calibration, str(path))
    lines = ",\n".join(f"  {dump_json(asdict(c))}" for c in calibrations)
    with atomic_path(path, force=force) as temporary:
        temporary.write_text(
            f'{{"kind": "{KIND}", "version": 1, "calibrations": [\n{lines}\n]}}\n', encoding="utf-8"
        )


def read_calibrations(path: Path) -> list[Calibration]:
    """The calibrations of a file.

    Raises:
        InputError: it cannot be read, is no file of calibrations, or a slope is not above 0.
    """
    with open_regular(path, most=_MAX_BYTES, what="calibration") as stream:
        try:
            text = stream.read(_MAX_BYTES + 1).decode()
            found = parse_json(text)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from None
        except UnicodeDecodeError:
            raise InputError(f"{path}: not UTF-8 text") from None
        except ValueError as error:
            raise InputError(f"{path}: not JSON ({error})", hint=_MADE) from None
    if not isinstance(found, dict) or found.get("kind") != KIND or NOT_UTF8.search(text):
        raise InputError(f"{path}: not a calibration of a judge", hint=_MADE)
    if found.get("version") != 1:
        raise InputError(f"{path}: a calibration of a later version of sanactl", hint="update sanactl")
    entries = found.get("calibrations")
    if not list_of(Field("", lambda v: isinstance(v, dict)), "").fits(entries) or not entries:
        raise InputError(f"{path}: a calibration without any judge", hint=_MADE)
    return [_calibration(entry, str(path)) for entry in entries]


_MADE = "sanactl eval judge RECORDS --calibration-out FILE writes one"


def _calibration(entry: Mapping[str, Any], where: str) -> Calibration:
    try:
        check_fields(_FIELDS, entry, ("judge", "slope", "intercept"))
    except ValueError as error:
        raise InputError(f"{where}: a calibration {error}") from None
    known = {name: entry[name] for name in _FIELDS if entry.get(name) is not None}
    return _check(
        Calibration(**{**known, "slope": float(known["slope"]), "intercept": float(known["intercept"])}),
        where,
    )


def _check(calibration: Calibration, where: str) -> Calibration:
    if not calibration.slope > 0:
        raise InputError(
            f"{where}: the slope of judge {calibration.judge} is {calibration.slope:.4g}; it must be above 0",
            hint="this judge does not tell right images from wrong ones, and its ranking would be reversed",
        )
    return calibration
