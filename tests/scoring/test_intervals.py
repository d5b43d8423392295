"""Intervals that cover what they say, and prompts that stay whole."""

from __future__ import annotations

import numpy as np
import pytest

from sanactl.scoring.intervals import mean_of_tasks


def test_values_are_means_of_images_and_of_tasks():
    overall, tasks = mean_of_tasks(
        {"a": np.array([3.0, 0.0]), "b": np.array([1.0])}, {"a": np.array([4.0, 2.0]), "b": np.array([1.0])}
    )
    assert tasks["a"].value == pytest.approx([0.5])
    assert tasks["b"].value == pytest.approx([1.0])
    assert overall.value == pytest.approx([0.75])


def test_there_is_no_interval_below_five_prompts():
    def measured(**prompts):
        return mean_of_tasks(
            {t: np.ones(n) for t, n in prompts.items()}, {t: np.ones(n) for t, n in prompts.items()}
        )

    overall, tasks = measured(a=4)
    assert overall.low is overall.high is tasks["a"].low is None
    overall, tasks = measured(a=4, b=5)
    assert tasks["a"].high is None
    assert tasks["b"].low is not None
    assert overall.low is not None


@pytest.mark.parametrize(("right", "prompts"), [(5, 5), (0, 5), (9, 12), (30, 60)])
def test_one_image_a_prompt_is_wilsons_interval(right, prompts):
    from scipy.stats import binomtest

    sums = {"a": np.array([1.0] * right + [0.0] * (prompts - right))}
    overall, tasks = mean_of_tasks(sums, {"a": np.ones(prompts)})
    wilson = binomtest(right, prompts).proportion_ci(method="wilson")
    for found in (overall, tasks["a"]):
        assert found.low == pytest.approx([wilson.low], abs=1e-12)
        assert found.high == pytest.approx([wilson.high], abs=1e-12)


def test_prompts_that_score_alike_have_an_interval_with_a_width():
    for value in (0.0, 0.5, 1.0):
        counts = {t: np.full(6, 8.0) for t in "ab"}
        overall, tasks = mean_of_tasks({t: value * n for t, n in counts.items()}, counts)
        for found in (overall, *tasks.values()):
            assert found.low is not None and found.high is not None
            assert 0 <= found.low[0] <= value <= found.high[0] <= 1
            assert found.high[0] - found.low[0] > 0.1


def test_several_quantities_at_once_are_what_each_is_alone():
    rng = np.random.default_rng(0)
    rows, once, images = rng.random((20, 3)), {"a": np.ones(20)}, {"a": np.full(20, 8.0)}
    together, _ = mean_of_tasks({"a": rows}, once, images=images)
    for column in range(3):
        alone, _ = mean_of_tasks({"a": rows[:, column]}, once, images=images)
        assert together.low is not None and together.high is not None
        assert alone.low is not None and alone.high is not None
        assert together.low[column] == pytest.approx(alone.low[0])
        assert together.high[column] == pytest.approx(alone.high[0])


def test_empty_tasks_are_refused():
    for sums in ({}, {"a": np.zeros(0)}):
        with pytest.raises(ValueError, match="at least one task"):
            mean_of_tasks(sums, {"a": np.zeros(0)})


def experiments(rng, prompts=60, images=8, tasks=3, spread=0.35):
    """Sums of correct images where a prompt's own rate varies: images of a prompt are alike."""
    rates = {f"t{t}": np.clip(rng.normal(0.4 + 0.1 * t, spread, prompts), 0, 1) for t in range(tasks)}
    return {t: rng.binomial(images, r).astype(float) for t, r in rates.items()}


@pytest.mark.parametrize(("prompts", "images"), [(60, 8), (12, 8), (12, 1), (2, 1)])
def test_intervals_cover_the_truth_about_as_often_as_they_say(prompts, images):
    rng = np.random.default_rng(0)
    counts = {f"t{t}": np.full(prompts, float(images)) for t in range(3)}
    many = experiments(np.random.default_rng(1), prompts=200_000, images=images)
    truth = np.mean([m.mean() / images for m in many.values()])
    covered, narrow, trials = 0, 0, 600
    for _ in range(trials):
        sums = experiments(rng, prompts, images)
        overall, _ = mean_of_tasks(sums, counts)
        assert overall.low is not None and overall.high is not None
        covered += bool(overall.low[0] <= truth <= overall.high[0])
        # As if every image were its own prompt: the interval that ignores that a prompt's images are alike.
        rate = {t: s.sum() / (prompts * images) for t, s in sums.items()}
        error = 1.96 * np.sqrt(sum(p * (1 - p) / (prompts * images) for p in rate.values())) / 3
        narrow += bool(abs(np.mean(list(rate.values())) - truth) <= error)
    # 600 trials: the standard error of a 95 % coverage is 0.9 %.
    assert covered / trials >= 0.92
    if images > 1:
        assert covered / trials <= 0.985
        assert narrow / trials < 0.80
