"""Distances between sets of features, against closed forms and brute force."""

from __future__ import annotations

import numpy as np
import pytest

from sanactl.scoring.distances.kernels import cmmd, kid, kid_of_subsets
from sanactl.scoring.distances.moments import GROUPS, Gaussian, Moments, frechet_distance, frechet_interval


def summed(rows: np.ndarray, groups: list[int] | None = None) -> Moments:
    found = Moments(rows.shape[1])
    found.add(rows, groups or [n % GROUPS for n in range(len(rows))])
    return found


def test_the_distance_of_normal_distributions_that_share_their_axes() -> None:
    rng = np.random.default_rng(0)
    axes, _ = np.linalg.qr(rng.normal(size=(30, 30)))
    a, b = rng.uniform(0, 4, (2, 30))
    a[:5] = b[3:9] = 0
    mu, nu = rng.normal(size=(2, 30))
    known = ((mu - nu) ** 2).sum() + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
    found = frechet_distance(Gaussian(mu, axes * a @ axes.T), Gaussian(nu, axes * b @ axes.T))
    assert found == pytest.approx(known, abs=1e-6)


def test_the_distance_of_any_two_normal_distributions_of_the_plane() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        a, b = (m @ m.T for m in rng.normal(size=(2, 2, 2)))
        mu, nu = rng.normal(size=(2, 2))
        # trace of the root of a 2 x 2 matrix M: sqrt(tr M + 2 sqrt(det M))
        root = np.sqrt(np.trace(a @ b) + 2 * np.sqrt(np.linalg.det(a) * np.linalg.det(b)))
        known = ((mu - nu) ** 2).sum() + np.trace(a) + np.trace(b) - 2 * root
        assert frechet_distance(Gaussian(mu, a), Gaussian(nu, b)) == pytest.approx(known, abs=1e-9)


@pytest.mark.parametrize("count", [20, 400])
def test_a_set_is_at_distance_0_from_itself(count: int) -> None:
    rows = np.random.default_rng(2).normal(3, 2, (count, 50))  # 20 rows: a singular covariance
    found = summed(rows).gaussian()
    assert frechet_distance(found, found) == pytest.approx(0, abs=1e-5)


def test_sums_are_numpys_covariance_in_any_batches() -> None:
    rng = np.random.default_rng(3)
    rows = (rng.normal(0.4, 0.3, (500, 12)) @ rng.normal(size=(12, 12))).astype(np.float32)
    shards = Moments(12)
    for part in np.array_split(rng.permutation(500), 9):
        shards.add(rows[part], [int(n) % GROUPS for n in part])
    whole = summed(rows)
    for moments in (shards, whole):
        np.testing.assert_allclose(moments.gaussian().mu, rows.astype(float).mean(0), rtol=1e-12)
        np.testing.assert_allclose(
            moments.gaussian().sigma, np.cov(rows.astype(float), rowvar=False), rtol=1e-9, atol=1e-12
        )
    others = rows[[n for n in range(500) if n % GROUPS != 4]].astype(float)
    np.testing.assert_allclose(
        whole.gaussian(without=4).sigma, np.cov(others, rowvar=False), rtol=1e-9, atol=1e-12
    )


def test_the_interval_covers_what_other_images_give() -> None:
    rng = np.random.default_rng(4)
    reference = Gaussian(np.full(6, 0.3), np.diag([1.0, 2, 1, 1, 0.5, 1]))
    sets = [rng.normal(size=(200, 6)) for _ in range(300)]
    found = [frechet_interval(summed(rows), reference) for rows in sets]
    expected = np.mean([value for value, _ in found])
    covered = np.mean([ci[0] < expected < ci[1] for _, ci in found if ci is not None])
    assert 0.92 < covered < 0.985


def test_no_interval_of_images_of_one_prompt() -> None:
    rows = np.random.default_rng(5).normal(size=(40, 3))
    assert frechet_interval(summed(rows, [0] * 40), Gaussian(np.zeros(3), np.eye(3)))[1] is None
    assert kid(rows, rows + 1, [0] * 40).ci is None


def test_kid_and_cmmd_are_the_sums_of_their_definitions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sanactl.scoring.distances.kernels._ROWS", 7)  # blocks that do not fit
    rng = np.random.default_rng(6)
    x, y = rng.normal(size=(23, 5)), rng.normal(0.5, 1.2, (17, 5))

    def cubic(a: np.ndarray, b: np.ndarray) -> float:
        return float((a @ b / 5 + 1) ** 3)

    def gauss(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.exp(-((a - b) ** 2).sum() / 200))

    groups = [n % GROUPS for n in range(23)]
    within = sum(cubic(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j) / (23 * 22)
    within += sum(cubic(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j) / (17 * 16)
    known = within - 2 * np.mean([cubic(a, b) for a in x for b in y])
    found = kid(x, y, groups)
    assert found.value == pytest.approx(known, rel=1e-9)
    assert found.ci is not None
    assert found.ci[0] < found.value < found.ci[1]

    means = [np.mean([gauss(a, b) for a in s for b in t]) for s, t in ((x, x), (y, y), (x, y))]
    assert cmmd(x, y, groups).value == pytest.approx(1000 * (means[0] + means[1] - 2 * means[2]), rel=1e-9)
    assert cmmd(x, x, groups).value == pytest.approx(0, abs=1e-9)


def test_subsets_are_those_of_torch_fidelity_and_agree_with_all_images() -> None:
    rng = np.random.default_rng(7)
    x, y = rng.normal(size=(300, 8)).astype(np.float32), rng.normal(0.2, 1, (250, 8)).astype(np.float32)
    value, spread = kid_of_subsets(x, y, subsets=50, size=60)
    drawn = np.random.RandomState(2020)
    estimates = []
    for _ in range(50):
        a, b = x[drawn.choice(300, 60, replace=False)], y[drawn.choice(250, 60, replace=False)]
        estimates.append(kid(a, b, [0] * 60).value)
    assert (value, spread) == pytest.approx((np.mean(estimates), np.std(estimates)), rel=1e-9)
    exact = kid(x, y, [n % GROUPS for n in range(300)])
    assert value == pytest.approx(exact.value, abs=4 * spread / 50**0.5)


def test_kid_of_equal_distributions_is_unbiased() -> None:
    rng = np.random.default_rng(8)
    groups = [n % GROUPS for n in range(40)]
    found = [kid(rng.normal(size=(40, 4)), rng.normal(size=(40, 4)), groups).value for _ in range(200)]
    assert abs(np.mean(found)) < 3 * np.std(found) / 200**0.5
    assert min(found) < 0
