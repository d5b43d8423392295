"""`filter --sample` and `--dedup`: which images pass, against brute force."""

from __future__ import annotations

import json
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sanactl.cli.frame.next_steps import wrote_line
from sanactl.errors import InputError, UsageError
from sanactl.files.images import write_png
from sanactl.scoring.filter import Condition, Filter, filter_records
from sanactl.scoring.near import HashLikeness, Likeness, open_likeness, perceptual_hash
from tests.pictures import picture
from tests.program import Program
from tests.scoring.tiny_models import save_clip


def record(number: int, **more: Any) -> dict[str, Any]:
    return {"kind": "image", "path": f"{number}.png", "prompt": f"prompt {number % 3}", **more}


def numbers(records: Any) -> list[int]:
    return [int(Path(r["path"]).stem) for r in records]


def test_a_sample_is_uniform_in_order_and_a_function_of_the_seed() -> None:
    records = [record(i, even=i % 2 == 0) for i in range(20)]
    conditions = [Condition("even")]
    seen: Counter[int] = Counter()
    for seed in range(2000):
        got = numbers(filter_records(records, Filter(conditions, sample=4, seed=seed)))
        assert len(set(got)) == 4 and got == sorted(got) and all(n % 2 == 0 for n in got)
        seen.update(got)
        if seed < 50:
            # From a stream, and a smaller one within a larger one.
            again = filter_records(iter(records), Filter(conditions, sample=4, seed=seed))
            assert numbers(again) == got
            assert set(numbers(filter_records(records, Filter(conditions, sample=2, seed=seed)))) < set(got)
    # 2,000 draws with probability 0.4 each: five standard deviations are 110.
    assert all(abs(seen[n] - 800) < 110 for n in range(0, 20, 2))
    assert numbers(filter_records(records, Filter(sample=99))) == list(range(20))


def test_a_sample_is_drawn_without_holding_the_rest() -> None:
    many = (record(i, fill="x" * 50_000 + str(i)) for i in range(4000))
    tracemalloc.start()
    assert len(list(filter_records(many, Filter(sample=5)))) == 5
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


def test_the_perceptual_hash_by_its_definition() -> None:
    """The DCT as a sum of cosines: imagehash's phash, which gave the same bits for 300 pictures."""
    n, k = np.arange(32), np.arange(8)
    wave = np.cos(np.pi * np.outer(k, 2 * n + 1) / 64)
    for index in range(20):
        image, _ = picture(index, (90, 70))
        grey = np.asarray(image.convert("L").resize((32, 32), Image.Resampling.LANCZOS), float)
        low = (wave @ grey @ wave.T).ravel()
        assert (perceptual_hash(image) == (low > np.median(low))).all()


class Given(Likeness):
    """Vectors by the red value of an image's first pixel."""

    name, batch_size = "given", 7

    def __init__(self, vectors: NDArray[np.float32], least: float) -> None:
        self.all, self.least = vectors, least

    def vectors(self, images: Any) -> NDArray[np.float32]:
        return self.all[[image.getpixel((0, 0))[0] for image in images]]


@pytest.mark.parametrize("by", [None, "score"])
def test_of_images_that_are_alike_one_passes(place: Path, by: str | None) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(60, 3)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = [None if i % 11 == 0 else round(float(rng.random()), 1) for i in range(60)]
    for i in range(60):
        write_png(np.full((2, 2, 3), i, np.uint8), Path(f"{i}.png"))
    records = [record(i, score=score) for i, score in enumerate(scores)]
    got = numbers(filter_records(iter(records), Filter(likeness=Given(vectors, 0.9), by=by)))

    order = list(range(60))
    if by:
        order.sort(key=lambda i: (scores[i] is None, -(scores[i] or 0), i))
    kept: list[int] = []
    for i in order:
        if not any(float(vectors[i] @ vectors[j]) >= 0.9 for j in kept):
            kept.append(i)
    assert got == sorted(kept)
    assert 5 < len(got) < 55


def test_copies_of_pictures_are_found(place: Path, sanactl: Program) -> None:
    """Smaller, in another format, a little brighter: the hash is the same or nearly so."""
    records = []
    for i in range(6):
        image, text = picture(i, (256, 256))
        for name, copy in (
            (f"{i}.png", image),
            (f"{i}-small.jpg", image.resize((120, 120))),
            (f"{i}-bright.png", image.point(lambda v: min(255, v + 4))),
        ):
            copy.save(name, quality=90)
            records.append({"kind": "image", "path": name, "prompt": text, "score": len(name)})
    Path("r.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    assert [r["path"] for r in sanactl("filter", "r.jsonl", "--dedup", "phash:4")] == [
        f"{i}.png" for i in range(6)
    ]
    assert "6 of 18 images passed; dropped: 12 by --dedup phash:4" in sanactl.said
    # The best of each three, and of these a sample of the first by their order.
    best = sanactl("filter", "r.jsonl", "--dedup", "phash:4", "--by", "score", "--force")
    assert [r["path"] for r in best] == [f"{i}-bright.png" for i in range(6)]
    some = sanactl("filter", "r.jsonl", "--dedup", "phash:4", "--sample", "2", "--seed", "3", "--force")
    assert len(some) == 2 and all(r in records for r in some)
    assert "dropped: 12 by --dedup phash:4, 4 by --sample" in sanactl.said


def test_clip_finds_images_by_the_cosine_of_its_vectors(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from transformers import CLIPModel

    from sanactl.scoring.clip_model import prepared

    monkeypatch.setenv("XDG_CACHE_HOME", str(place.parent))
    folder = save_clip(place / "clip")
    images = [picture(i // 2, (40, 36) if i % 2 else (64, 64))[0] for i in range(20)]
    for i, image in enumerate(images):
        image.save(f"{i}.png")
    model = CLIPModel.from_pretrained(folder)
    with torch.no_grad():
        pixels = torch.stack([prepared(image.convert("RGB"), 32) for image in images])
        found = model.get_image_features(pixel_values=pixels)
        vectors = getattr(found, "pooler_output", found).numpy()
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = np.sort((vectors @ vectors.T)[np.triu_indices(20, 1)])
    # Between two cosines, so that rounding decides nothing.
    gaps = np.diff(cosines[95:])
    place_of = 95 + int(np.argmax(gaps))
    least = float(cosines[place_of] + cosines[place_of + 1]) / 2
    kept: list[int] = []
    for i in range(20):
        if not any(float(vectors[i] @ vectors[j]) >= least for j in kept):
            kept.append(i)
    likeness = open_likeness(f"clip:{folder}:{least}", "cpu")
    assert numbers(filter_records(map(record, range(20)), Filter(likeness=likeness))) == kept
    assert 1 < len(kept) < 20


@pytest.mark.parametrize(
    "text",
    ["", "x", "phash:-1", "phash:32", "phash:2.5", "phash:" + "9" * 400, "clip::2", "clip:m:0", "clip:m:nan", "PHASH"],
)  # fmt: skip
def test_what_is_no_likeness_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--dedup"):
        open_likeness(text)


def test_bad_input(place: Path, sanactl: Program) -> None:
    picture(0)[0].save("0.png")
    Path("1.png").write_bytes(Path("0.png").read_bytes()[:100])
    for path, said in (("1.png", "not a readable image"), ("2.png", "no such"), (".", "not a regular file")):
        rows = [{**record(1), "path": path}, record(0)]
        Path("r.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        assert said in sanactl.fails("filter", "r.jsonl", "--dedup", "phash")
        assert not Path("filter.jsonl").exists()
    assert "no such folder" in sanactl.fails("filter", "r.jsonl", "--dedup", "clip:./nothing")
    for options in (["--correct", "--by", "x"], ["--by", "x"]):
        assert "--by is for --top and --dedup" in sanactl.fails("filter", "r.jsonl", *options, code=2)
    assert "--max-bad is for --dedup" in sanactl.fails(
        "filter", "r.jsonl", "--correct", "--max-bad", "1", code=2
    )
    Path("r.jsonl").write_text(json.dumps(record(0, x="5")) + "\n")
    assert "x is '5', not a number" in sanactl.fails("filter", "r.jsonl", "--dedup", "phash", "--by", "x")
    assert "no record has the field 'y'" in sanactl.fails(
        "filter", "r.jsonl", "--dedup", "phash", "--by", "y"
    )
    with pytest.raises(InputError, match="no record has the field 'y'"):
        list(filter_records([record(0)], Filter(likeness=HashLikeness(), by="y")))


@pytest.mark.parametrize("by", [(), ("--by", "score")])
def test_damaged_images_are_left_out_up_to_a_number(
    place: Path, sanactl: Program, by: tuple[str, ...]
) -> None:
    for n in (0, 2):
        picture(n)[0].save(f"{n}.png")
    Path("1.png").write_bytes(Path("0.png").read_bytes()[:100])
    rows = [record(n, score=n) for n in range(4)]  # 1 is damaged, 3 is missing
    Path("r.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    command = ("filter", "r.jsonl", "--dedup", "phash", *by, "-o", "out.jsonl", "--max-bad")
    sanactl(*command, "1", code=1)  # records that passed before are on stdout already
    assert "--max-bad allows 1" in sanactl.said
    assert not Path("out.jsonl").exists()
    assert numbers(sanactl(*command, "2")) == [0, 2]
    assert (
        "left out: 1.png: not a readable image" in sanactl.said and "left out: 3.png: no such" in sanactl.said
    )
    assert "2 of 4 images passed; 2 records left out" in sanactl.said


def test_an_empty_output_has_no_next_command() -> None:
    for command, kind in (
        ("filter", "image"),
        ("judge", "image"),
        ("importance", "block"),
        ("eval clip", "score"),
    ):
        assert wrote_line(command, Path("x"), kind, {}) == f"wrote x (0 {kind}s)"
        assert " - next: sanactl " in wrote_line(command, Path("x"), kind, {kind: 1})
