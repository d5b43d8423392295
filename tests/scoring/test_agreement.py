"""Figures of scores against truth, held to brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sanactl.scoring.agreement import Ranking, Reliability, auc, best_of_groups, pair_accuracy
from sanactl.scoring.intervals import bootstrap

RNG = np.random.default_rng(0)
N = 60
SCORES = np.round(RNG.normal(size=N), 1)  # with ties
TRUTH = RNG.random(N) < 0.4
GROUPS = RNG.integers(0, 9, N)


def slow_auc(scores: np.ndarray, truth: np.ndarray) -> float:
    pairs = [(a > b) + (a == b) / 2 for a in scores[truth] for b in scores[~truth]]
    return float(np.mean(pairs)) if pairs else math.nan


def test_auc_is_the_share_of_pairs_in_order() -> None:
    assert auc(SCORES, TRUTH) == pytest.approx(slow_auc(SCORES, TRUTH), abs=1e-12)
    assert auc(SCORES, np.ones(N, bool)) == 0.5


def test_weights_are_how_often_an_image_counts() -> None:
    weights = RNG.integers(0, 4, N)
    often = np.repeat(np.arange(N), weights)
    found = Ranking(SCORES, TRUTH).auc(weights.astype(float))
    assert found == pytest.approx(slow_auc(SCORES[often], TRUTH[often]), abs=1e-12)
    assert math.isnan(Ranking(SCORES, TRUTH).auc(TRUTH.astype(float)))
    p = 1 / (1 + np.exp(-SCORES))
    error = Reliability(p, TRUTH).error(weights.astype(float))
    assert error == pytest.approx(Reliability(p[often], TRUTH[often]).error(np.ones(len(often))), abs=1e-12)


def test_pairs_are_compared_within_their_group() -> None:
    found = pair_accuracy(SCORES, TRUTH, GROUPS)
    for group in range(9):
        mine = group == GROUPS
        assert found[group] == pytest.approx(slow_auc(SCORES[mine], TRUTH[mine]), abs=1e-12, nan_ok=True)
    assert np.isnan(pair_accuracy(SCORES, TRUTH, np.arange(N))).all()


def test_the_best_of_a_group_is_the_mean_over_ties() -> None:
    values = np.stack([TRUTH, SCORES], axis=1).astype(float)
    found = best_of_groups(SCORES, values, GROUPS, 10)
    for group in range(9):
        mine = group == GROUPS
        best = mine & (SCORES[mine].max() == SCORES)
        assert found[group] == pytest.approx(values[best].mean(axis=0))
    assert np.isnan(found[9]).all()


def test_the_calibration_error_is_that_of_a_loop_over_bins() -> None:
    p = RNG.random(150)
    truth = RNG.random(150) < p**2
    total = 0.0
    order = np.argsort(p)
    for number in range(15):
        members = order[number * 10 : (number + 1) * 10]
        total += abs(p[members].mean() - truth[members].mean()) * 10 / 150
    assert Reliability(p, truth).error(np.ones(150)) == pytest.approx(total, abs=1e-12)
    # The order of images does not matter, ties or not.
    rough = np.round(p, 1)
    shuffled = RNG.permutation(150)
    one, other = Reliability(rough, truth), Reliability(rough[shuffled], truth[shuffled])
    assert one.error(np.ones(150)) == pytest.approx(other.error(np.ones(150)), abs=1e-12)
    assert Reliability(p[:4], truth[:4]).bins == 4


def test_a_bootstrap_covers_what_it_should() -> None:
    """Means of normal numbers: 95 % intervals hold the mean in about 95 of 100 cases."""
    held = 0
    for seed in range(120):
        values = np.random.default_rng([seed, 5]).normal(size=40)

        def mean(w: np.ndarray, values: np.ndarray = values) -> np.ndarray:
            return np.array([w @ values / w.sum()])

        found = bootstrap(mean, 40, draws=200, seed=seed)
        assert found.low is not None and found.high is not None
        held += bool(found.low[0] <= 0 <= found.high[0])
    assert 102 <= held <= 119
    assert bootstrap(lambda w: w[:1], 4).low is None
    # A figure that is undefined, and one that is the same whichever prompts are drawn.
    none = bootstrap(lambda w: np.array([math.nan, 1.0]), 10)
    assert none.low is not None and np.isnan(none.low).all() and none.value[1] == 1
