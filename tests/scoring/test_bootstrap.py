"""The paired bootstrap: what is common to two scores leaves their difference."""

from __future__ import annotations

import numpy as np

from sanactl.scoring.bootstrap import PairedBootstrap


def test_a_common_part_does_not_widen_a_difference() -> None:
    rng = np.random.default_rng(0)
    tasks = ["easy"] * 60 + ["hard"] * 40
    one = np.concatenate([rng.uniform(0.5, 1, 60), rng.uniform(0, 0.5, 40)])[:, None]
    other = one + 0.1
    bootstrap = PairedBootstrap(tasks)
    reach = bootstrap.interval(np.hstack([one, other, other - one]))
    assert reach is not None
    np.testing.assert_allclose(reach[2], 0.1, atol=1e-12)
    assert reach[0][0] < bootstrap.means(one)[0] < reach[0][1]
    np.testing.assert_allclose(bootstrap.means(one), (one[:60].mean() + one[60:].mean()) / 2, atol=1e-12)
    assert PairedBootstrap(["easy"] * 4).interval(one[:4]) is None
    assert PairedBootstrap(["easy"] * 5 + ["hard"]).interval(one[:6]) is None


def test_intervals_cover() -> None:
    """Of 200 samples of prompts, about 95 % have the true difference in their interval."""
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        prompts = rng.uniform(0, 1, 80)
        difference = np.where(rng.uniform(size=80) < prompts, 0.5, -0.2)[:, None]
        low, high = PairedBootstrap(["a"] * 80, resamples=400).interval(difference)[0]  # type: ignore[index]
        covered += low <= 0.15 <= high
    assert 180 <= covered <= 198
