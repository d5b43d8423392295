"""The order of examples: known at any step at once, every image equally often."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from sanactl.data.buckets import bucket_sizes, nearest_bucket, nearest_buckets
from sanactl.data.order import BucketOrder, ShuffledOrder
from sanactl.errors import UsageError

SIZES = [(32, 128), (64, 64), (128, 32)]


def order(counts: tuple[int, ...] = (3, 10, 7), seed: int = 0) -> BucketOrder:
    rows = np.random.default_rng(5).permutation(np.repeat(np.arange(len(counts)), counts))
    return BucketOrder(rows.astype(np.int64), SIZES[: len(counts)], seed)


def test_a_step_is_of_one_size() -> None:
    chosen = order()
    for step in range(40):
        positions, size = chosen.step(step, 4)
        assert len(set(positions)) == 4
        assert {chosen.size(chosen.row(p)) for p in positions} == {size}


def test_any_step_is_known_at_once() -> None:
    walked = order()
    steps = [walked.step(step, 4) for step in range(70)]
    assert order().step(69, 4) == steps[69]
    assert [order().step(s, 4) for s in (33, 2)] == [steps[33], steps[2]]
    assert order(seed=1).step(69, 4) != steps[69]


@pytest.mark.parametrize("count", [1, 4, 5])
def test_every_image_is_seen_equally_often(count: int) -> None:
    """As many steps as there are rows are `count` epochs of every bucket, and never twice before all were seen once."""
    chosen = order()
    seen: Counter[int] = Counter()
    for step in range(20):
        positions, _ = chosen.step(step, count)
        rows = [chosen.row(p) for p in positions]
        seen.update(rows)
        bucket = [seen[r] for r in range(20) if chosen.size(r) == chosen.size(rows[0])]
        assert max(bucket) - min(bucket) <= 1
    assert seen == Counter(dict.fromkeys(range(20), count))


def test_positions_name_rows_and_visits() -> None:
    chosen = order()
    positions = [p for step in range(100) for p in chosen.step(step, 4)[0]]
    assert len(set(positions)) == len(positions)


def test_rows_left_out_are_never_drawn() -> None:
    chosen = BucketOrder(np.array([0, -1, 1, 1, -1, 0], dtype=np.int64), SIZES[:2], 0)
    drawn = {chosen.row(p) for step in range(20) for p in chosen.step(step, 3)[0]}
    assert drawn == {0, 2, 3, 5}
    assert (chosen.after(0), chosen.after(5), chosen.after(2)) == (5, 0, 3)


def test_epochs_of_one_size() -> None:
    chosen = ShuffledOrder(10, 3, (64, 64))
    epochs = [tuple(chosen.row(e * 10 + i) for i in range(10)) for e in range(3)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len(set(epochs)) == 3


@pytest.mark.parametrize(("side", "multiple"), [(64, 8), (64, 16), (96, 8), (256, 16), (512, 32), (1024, 32)])
def test_buckets_keep_the_area(side: int, multiple: int) -> None:
    sizes = bucket_sizes(side, side, multiple)
    assert (side, side) in sizes
    assert len(sizes) == len(set(sizes)) >= 3
    for height, width in sizes:
        assert height % multiple == width % multiple == 0
        assert (width, height) in sizes or side >= 256  # SANA's own tables are not quite even-handed
        assert 0.24 < height / width < 4.2
        assert height * width / side**2 == pytest.approx(1, abs=0.2)


def test_published_sizes_are_sana_s_own() -> None:
    from diffusers.pipelines.sana.pipeline_sana import ASPECT_RATIO_1024_BIN

    assert set(bucket_sizes(1024, 1024, 32)) == {(int(h), int(w)) for h, w in ASPECT_RATIO_1024_BIN.values()}
    with pytest.raises(UsageError, match="multiple"):
        bucket_sizes(1000, 1024, 32)


def test_the_nearest_bucket_by_brute_force() -> None:
    sizes = bucket_sizes(512, 512, 32)
    images = np.random.default_rng(0).integers(20, 3000, size=(300, 2))
    images[7] = 0
    found = nearest_buckets(images, sizes)
    assert found[7] == -1
    for image, bucket in zip(images, found, strict=True):
        if bucket >= 0:
            apart = [abs(np.log(image[0] / image[1]) - np.log(h / w)) for h, w in sizes]
            assert apart[bucket] == pytest.approx(min(apart))
    assert nearest_bucket(1000, 1000, sizes) == (512, 512)
