"""Intervals that cover what they say, and prompts that stay whole."""

from __future__ import annotations

import numpy as np
import pytest

from sanactl.scoring.intervals import bootstrap_task_means


def test_values_are_means_of_images_and_of_tasks():
    overall, tasks = bootstrap_task_means(
        {"a": np.array([3.0, 0.0]), "b": np.array([1.0])}, {"a": np.array([4.0, 2.0]), "b": np.array([1.0])}
    )
    assert tasks["a"].value == pytest.approx([0.5])
    assert tasks["b"].value == pytest.approx([1.0])
    assert overall.value == pytest.approx([0.75])
    assert tasks["b"].low == tasks["b"].high == 1.0
    assert tasks["a"].low == pytest.approx([0.0])
    assert tasks["a"].high == pytest.approx([0.75])


def test_the_same_seed_gives_the_same_interval():
    sums, counts = {"a": np.arange(9.0)}, {"a": np.full(9, 8.0)}
    first, second, other = (bootstrap_task_means(sums, counts, seed=seed)[0] for seed in (1, 1, 2))
    assert (first.low, first.high) == (second.low, second.high) != (other.low, other.high)


def test_drawing_in_parts_changes_nothing_but_the_order(monkeypatch):
    sums, counts = {"a": np.arange(50.0)}, {"a": np.full(50, 60.0)}
    whole = bootstrap_task_means(sums, counts, seed=3)[0]
    monkeypatch.setattr("sanactl.scoring.intervals._PART", 50 * 7)
    parts = bootstrap_task_means(sums, counts, seed=3)[0]
    assert whole.low == pytest.approx(parts.low)
    assert whole.high == pytest.approx(parts.high)


def test_empty_tasks_are_refused():
    for sums in ({}, {"a": np.zeros(0)}):
        with pytest.raises(ValueError, match="at least one task"):
            bootstrap_task_means(sums, {"a": np.zeros(0)})


def experiments(rng, prompts=60, images=8, tasks=3, spread=0.35):
    """Sums of correct images where a prompt's own rate varies: images of a prompt are alike."""
    rates = {f"t{t}": np.clip(rng.normal(0.4 + 0.1 * t, spread, prompts), 0, 1) for t in range(tasks)}
    return {t: rng.binomial(images, r).astype(float) for t, r in rates.items()}


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(0)
    counts = {f"t{t}": np.full(60, 8.0) for t in range(3)}
    many = experiments(np.random.default_rng(1), prompts=200_000)
    truth = np.mean([m.mean() / 8 for m in many.values()])
    covered, narrow, trials = 0, 0, 300
    for trial in range(trials):
        sums = experiments(rng)
        overall, _ = bootstrap_task_means(sums, counts, resamples=400, seed=trial)
        covered += bool(overall.low[0] <= truth <= overall.high[0])
        # As if every image were its own prompt: the interval that ignores that a prompt's images are alike.
        rate = {t: s.sum() / 480 for t, s in sums.items()}
        error = 1.96 * np.sqrt(sum(p * (1 - p) / 480 for p in rate.values())) / 3
        narrow += bool(abs(np.mean(list(rate.values())) - truth) <= error)
    # 300 trials: the standard error of a 95 % coverage is 1.3 %; percentile intervals fall a little short of
    # it.
    assert 0.90 <= covered / trials <= 0.985
    assert narrow / trials < 0.80
