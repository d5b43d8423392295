"""What a judge's verdicts are worth: figures with intervals over prompts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sanactl.judging.audit.gather import Judged
from sanactl.judging.calibration import IDENTITY, Calibration, fit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sanactl.scoring.agreement import Reliability
    from sanactl.scoring.intervals import Estimate

    Array = NDArray[np.float64]

__all__ = ["FOLDS", "MASS_AT", "Figure", "Figures", "as_figures", "cross_fitted", "log_odds", "order_of"]

# Parts of the prompts; the calibration of a part's images is fitted on the others.
FOLDS = 10
MASS_AT = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Figure:
    """A value and its 95 % interval; None where it is undefined, or there are too few prompts."""

    value: float | None
    ci: tuple[float, float] | None


def log_odds(judged: Judged) -> Array:
    """float64 [N]: log P(yes) - log P(no)."""
    import numpy as np

    return np.array([v.yes_logprob - v.no_logprob for v in judged.verdicts])


def order_of(judged: Judged) -> Array:
    """float64 [N]: the place of each verdict among all by the tournament's rule, a larger one the better."""
    import numpy as np

    yes = np.array([v.verdict == "yes" for v in judged.verdicts])
    sure = np.array([v.yes_logprob if v.verdict == "yes" else -v.no_logprob for v in judged.verdicts])
    places = np.unique(sure, return_inverse=True)[1]
    found: Array = (places + yes * (len(sure) + 1)).astype(np.float64)
    return found


def cross_fitted(
    odds: Array, truth: NDArray[np.bool_], prompts: Sequence[str], groups: NDArray[np.int64]
) -> Array | None:
    """The probability of each image by a calibration that was fitted on other prompts.

    Prompts are put into `FOLDS` parts by a hash of their text, so the parts depend on no label, no order, and no image.

    Args:
        odds: float64 [N], `log_odds`.
        truth: bool [N].
        prompts: the P texts.
        groups: int64 [N], each image's prompt.

    Returns:
        float64 [N], or None if there are fewer than two prompts.
    """
    import hashlib

    import numpy as np

    if len(prompts) < 2:
        return None
    digests = [hashlib.sha256(prompt.encode()).digest() for prompt in prompts]
    ranks = np.argsort(np.array(sorted(range(len(prompts)), key=lambda i: digests[i])))
    folds = (ranks % min(FOLDS, len(prompts)))[groups]
    found = np.empty(len(odds))
    for part in np.unique(folds):
        own = folds == part
        calibration = Calibration(*fit(odds[~own], truth[~own]))
        found[own] = [np.exp(calibration.logs(value, 0.0)[0]) for value in odds[own]]
    return found


class Figures:
    """All figures of a judge on some prompts, as one function of how often each prompt counts.

    Args:
        judged: the verdicts and the truth.
        crossed: `cross_fitted` of all prompts, or None.
        chosen: bool [P], the prompts to measure.
    """

    def __init__(self, judged: Judged, crossed: Array | None, chosen: NDArray[np.bool_]) -> None:
        import numpy as np

        from sanactl.scoring.agreement import Ranking, Reliability, best_of_groups, pair_accuracy

        mine = chosen[judged.groups]
        numbers = np.cumsum(chosen) - 1
        self.groups, self.truth = numbers[judged.groups[mine]], judged.truth[mine]
        self.prompts, self.images = int(chosen.sum()), int(mine.sum())
        order, odds = order_of(judged)[mine], log_odds(judged)[mine]
        said = np.array([v.verdict == "yes" for v in judged.verdicts])[mine]
        raw = np.array([np.exp(IDENTITY.logs(value, 0.0)[0]) for value in odds])
        self.probabilities: dict[str, Array] = {"": raw}
        if crossed is not None:
            self.probabilities["calibrated"] = crossed[mine]
        if judged.calibrated is not None:
            self.probabilities["given"] = judged.calibrated[mine]
        self._ranking = Ranking(order, self.truth)
        self.reliability = {name: Reliability(p, self.truth) for name, p in self.probabilities.items()}
        self._mass = np.array([v.answer_mass for v in judged.verdicts])[mine]
        self._mass_order = np.argsort(self._mass, kind="stable")
        t = self.truth.astype(np.float64)
        sums = [said & self.truth, self.truth, ~said & ~self.truth, ~self.truth, np.ones(len(t))]
        sums += [(p - t) ** 2 for p in self.probabilities.values()]
        self._sums = self._by_prompt(np.stack([np.asarray(s, dtype=np.float64) for s in sums], axis=1))
        self._pairs = pair_accuracy(order, self.truth, self.groups)
        # What choosing gives is asked where there is a choice.
        several = np.bincount(self.groups, minlength=self.prompts) > 1
        columns = np.stack([t, *self.probabilities.values()], axis=1)
        best = best_of_groups(order, columns, self.groups, self.prompts)
        images = np.bincount(self.groups, minlength=self.prompts)[:, None]
        one = self._by_prompt(columns[:, :1]) / images
        oracle = best_of_groups(t, t[:, None], self.groups, self.prompts)
        self._choice = np.where(several[:, None], np.concatenate([one, oracle, best], axis=1), np.nan)

    def _by_prompt(self, values: Array) -> Array:
        """float64 [P, K]: sums over each prompt's images of values [N, K]."""
        import numpy as np

        return np.stack([np.bincount(self.groups, column, self.prompts) for column in values.T], axis=1)

    @property
    def names(self) -> list[str]:
        """Of the figures that a call gives, in their order."""
        kinds = [f"_{name}" if name else "" for name in self.probabilities]
        return [
            "auc", "pair_accuracy", "balanced_accuracy",
            *(f"brier{kind}" for kind in kinds),
            *(f"calibration_error{kind}" for kind in kinds),
            "one", "ceiling", "winner_precision", "gap_closed",
            *(f"winner_expected{kind}" for kind in kinds),
            *(f"winners_curse{kind}" for kind in kinds),
            *(f"mass {at}" for at in MASS_AT),
        ]  # fmt: skip

    def __call__(self, weights: Array) -> Array:
        """float64 [K]: the figures, NaN where one is undefined.

        Args:
            weights: float64 [P], how often each prompt counts.
        """
        import numpy as np

        of_images = weights[self.groups]
        right_yes, right, right_no, wrong, count, *errors = weights @ self._sums
        with np.errstate(invalid="ignore", divide="ignore"):
            balanced = (right_yes / right + right_no / wrong) / 2
            one, ceiling, best, *expected = _mean(self._choice, weights)
            closed = (best - one) / (ceiling - one) if ceiling - one > 1e-12 else np.nan
            briers = [error / count for error in errors]
        return np.array(
            [
                self._ranking.auc(of_images),
                *_mean(self._pairs[:, None], weights),
                balanced,
                *briers,
                *(r.error(of_images) for r in self.reliability.values()),
                one,
                ceiling,
                best,
                closed,
                *expected,
                *(value - best for value in expected),
                *self._mass_at(of_images),
            ]
        )

    def _mass_at(self, of_images: Array) -> Array:
        """The quantiles of the answer mass at `MASS_AT`."""
        import numpy as np

        counts = np.cumsum(of_images[self._mass_order])
        places = np.searchsorted(counts, np.asarray(MASS_AT) * counts[-1])
        found: Array = self._mass[self._mass_order][np.minimum(places, len(counts) - 1)]
        return found

    def measure(self) -> dict[str, Figure]:
        """Each figure with its interval."""
        import numpy as np

        from sanactl.scoring.intervals import bootstrap

        names = self.names
        # A sample of prompts has a larger calibration error than all.
        basic = np.array([name.startswith("calibration_error") for name in names])
        found = bootstrap(self, self.prompts, basic=basic)
        return dict(zip(names, as_figures(found), strict=True))

    def curves(self) -> dict[str, list[tuple[float, Figure]]]:
        """For each kind of probability, of each bin its mean and the share that is right."""
        import numpy as np

        from sanactl.scoring.intervals import bootstrap

        found = {}
        for name, reliability in self.reliability.items():
            places, _ = reliability.curve(np.ones(self.images))

            def of_bins(weights: Array, reliability: Reliability = reliability) -> Array:
                return reliability.curve(weights[self.groups])[1]

            shares = bootstrap(of_bins, self.prompts)
            found[name] = list(zip(map(float, places), as_figures(shares), strict=True))
        return found


def _mean(values: Array, weights: Array) -> Array:
    """float64 [K]: the weighted mean over prompts of values [P, K], without those that are undefined."""
    import numpy as np

    known = ~np.isnan(values)
    total = weights @ known
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Array = (weights @ np.where(known, values, 0.0)) / total
    return found


def as_figures(found: Estimate) -> Iterator[Figure]:
    """The quantities of an estimate one by one."""
    for place, value in enumerate(found.value.tolist()):
        ends = None
        if found.low is not None and found.high is not None:
            low, high = float(found.low[place]), float(found.high[place])
            ends = None if math.isnan(low) or math.isnan(high) else (low, high)
        yield Figure(None if math.isnan(value) else value, ends)
