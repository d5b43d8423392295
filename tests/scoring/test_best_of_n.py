"""The exact expectation of best-of-n against all subsets."""

from __future__ import annotations

from itertools import combinations, permutations
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sanactl.scoring.best_of_n import (
    expected_top_k,
    first_hit,
    sizes_up_to,
)


def expected_best_of_n(values, scores, n):
    return expected_top_k(values, scores, n, 1)


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
    assert expected_best_of_n(values, scores, n) == pytest.approx(brute_force(values, scores, n), abs=1e-12)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=9), st.data())
def test_a_perfect_judge_finds_any_right_image(correct, data):
    n = data.draw(st.integers(1, len(correct)))
    wrong = len(correct) - sum(correct)
    assert expected_best_of_n(correct, correct, n) == pytest.approx(
        1 - comb(wrong, n) / comb(len(correct), n)
    )


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


def brute_force_top(values, scores, n, k):
    """The mean over all subsets of n, and over all ways to put equals in order, of the mean of the best k."""
    results = []
    for subset in combinations(range(len(values)), n):
        worst = sorted((scores[i] for i in subset), reverse=True)[k - 1]
        surely = [values[i] for i in subset if scores[i] > worst]
        equals = [values[i] for i in subset if scores[i] == worst]
        results.append((sum(surely) + (k - len(surely)) * np.mean(equals)) / k)
    return np.mean(results)


@settings(max_examples=100, deadline=None)
@given(images, st.data())
def test_the_mean_of_the_top_is_that_over_all_subsets(pairs, data):
    n = data.draw(st.integers(1, len(pairs)))
    k = data.draw(st.integers(1, n))
    values, scores = zip(*pairs, strict=True)
    assert expected_top_k(values, scores, n, k) == pytest.approx(
        brute_force_top(values, scores, n, k), abs=1e-12
    )


def search(values, scores, hits, order, cap, size):
    """Draws in this order, as `first_hit` says, and takes the best; of equals, their mean."""
    drawn: list[int] = []
    while len(drawn) < cap and not any(hits[i] for i in drawn):
        drawn += order[len(drawn) : min(len(drawn) + size, cap)]
    best = max(scores[i] for i in drawn)
    value = np.mean([values[i] for i in drawn if scores[i] == best])
    return len(drawn), any(hits[i] for i in drawn), value


@settings(max_examples=25, deadline=None)
@given(images.filter(lambda pairs: len(pairs) <= 6), st.data())
def test_the_first_hit_is_that_over_all_orders(pairs, data):
    values, scores = zip(*pairs, strict=True)
    cap, size = (data.draw(st.integers(1, len(pairs))) for _ in range(2))
    threshold = data.draw(st.sampled_from((-10.0, -1.0, 0.0, 0.2, 10.0)))
    hits = [s > threshold for s in scores]
    every = [search(values, scores, hits, list(o), cap, size) for o in permutations(range(len(pairs)))]
    found = first_hit(values, scores, hits, cap, size)
    assert (found.draws, found.success, found.value) == pytest.approx(np.mean(every, axis=0), abs=1e-12)


def test_a_search_for_what_is_right_ends_with_what_is_right():
    correct = [True] * 3 + [False] * 2045
    for cap in (1, 100, 2048):
        found = first_hit(correct, correct, correct, cap)
        assert (
            found.value
            == pytest.approx(found.success)
            == pytest.approx(expected_best_of_n(correct, correct, cap))
        )
    assert first_hit(correct, correct, correct, 2048).draws == pytest.approx(2049 / 4)  # (N + 1) / (m + 1)
    with pytest.raises(ValueError, match="higher score"):
        first_hit([1.0, 0.0], [0.1, 0.9], [True, False], 2)
    with pytest.raises(ValueError, match="higher score"):
        first_hit([1.0, 0.0], [0.9, 0.9], [True, False], 2)
    with pytest.raises(ValueError, match="rounds of 0"):
        first_hit([1.0], [1.0], [True], 1, 0)


def test_many_of_many():
    """Shares add up to one for the paper's numbers: the best 4 of 2048."""
    scores = np.random.default_rng(0).random(2048).tolist()
    for n, k in ((4, 4), (1024, 4), (2048, 4), (1500, 300)):
        assert expected_top_k([1.0] * 2048, scores, n, k) == pytest.approx(1.0, abs=1e-12)
    assert expected_top_k(scores, scores, 2048, 4) == pytest.approx(np.mean(sorted(scores)[-4:]))
    assert sizes_up_to(16, 4) == [4, 8, 16]
    assert sizes_up_to(5, 3) == [3, 4, 5]
