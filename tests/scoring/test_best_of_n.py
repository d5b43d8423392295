"""The exact expectation of best-of-n against all subsets."""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sanactl.scoring.best_of_n import expected_best_of_n, pass_at_n, sizes_up_to


def brute_force(values, scores, n):
    """The mean over all subsets of n of the value of the best; one of the equals is taken at random."""
    results = []
    for subset in combinations(range(len(values)), n):
        best = max(scores[i] for i in subset)
        results.append(np.mean([values[i] for i in subset if scores[i] == best]))
    return np.mean(results)


images = st.lists(
    st.tuples(st.sampled_from((0.0, 1.0, 0.5)), st.sampled_from((-1.0, 0.0, 0.25, 2.0)) | st.floats(-5, 5)),
    min_size=1,
    max_size=8,
)


@settings(max_examples=100, deadline=None)
@given(images, st.data())
def test_expectation_is_that_over_all_subsets(pairs, data):
    n = data.draw(st.integers(1, len(pairs)))
    values, scores = zip(*pairs, strict=True)
    assert expected_best_of_n(values, scores, n) == pytest.approx(brute_force(values, scores, n))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=9), st.data())
def test_the_oracle_is_pass_at_n(correct, data):
    n = data.draw(st.integers(1, len(correct)))
    wrong = len(correct) - sum(correct)
    assert pass_at_n(correct, n) == pytest.approx(1 - comb(wrong, n) / comb(len(correct), n))


def test_equals_share_what_they_are_worth():
    assert expected_best_of_n([1.0, 0.0, 0.0, 1.0, 0.0], [0.9, 0.9, 0.9, 0.1, 0.1], 5) == pytest.approx(1 / 3)


def test_ends_are_the_mean_and_the_best():
    rng = np.random.default_rng(0)
    values, scores = rng.random(2048).tolist(), rng.random(2048).tolist()
    assert expected_best_of_n(values, scores, 1) == pytest.approx(np.mean(values))
    assert expected_best_of_n(values, scores, 2048) == values[int(np.argmax(scores))]
    assert 0 < expected_best_of_n([1.0] * 2048, scores, 1024) <= 1 + 1e-9


def test_sizes_are_powers_of_two_and_the_last():
    assert sizes_up_to(1) == [1]
    assert sizes_up_to(16) == [1, 2, 4, 8, 16]
    assert sizes_up_to(20) == [1, 2, 4, 8, 16, 20]


def test_impossible_choices_are_refused():
    for n in (0, 4):
        with pytest.raises(ValueError, match="cannot choose"):
            expected_best_of_n([1.0] * 3, [1.0] * 3, n)
    with pytest.raises(ValueError, match="a number"):
        expected_best_of_n([1.0], [float("nan")], 1)
