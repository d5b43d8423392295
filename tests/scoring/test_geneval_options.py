"""`eval geneval`: missing images, other rules, detections in a file, the share of prompts with a correct image."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from sanactl.files.images import write_png
from sanactl.scoring.detectors.protocol import Detected
from sanactl.scoring.detectors.registry import DETECTORS
from sanactl.scoring.geneval.kept_detections import KeptDetections, detections_line, from_runs, to_runs
from sanactl.scoring.geneval.rules import RULES, score_image
from tests.program import Program

BOX = (0.0, 0.0, 9.0, 9.0)


class Model:
    """A detector with a model: as many circles as an image has bright columns; their colours come in a second step."""

    label, digest, classes, batch_size = "model-1", "sha256:7", frozenset({"circle"}), 2
    facts: ClassVar = {"dtype": "float32"}
    calls = 0

    def __init__(self, device: str | None = None, dtype: str | None = None) -> None:
        pass

    def detect(self, images: Any, classes: Any) -> list[list[Detected]]:
        Model.calls += len(images)
        return [list(map(partial(self.one, image), np.flatnonzero(image[0, :, 0] > 127))) for image in images]

    def one(self, image: Any, x: int) -> Detected:
        return Detected("circle", None, 0.95 + x / 1000, (x, 0.0, x + 1.0, 8.0), image[..., 0] > x)

    def colors(self, image: Any, objects: Any, name: str) -> list[str]:
        return ["red"] * len(objects)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """GenEval's layout: three prompts for two circles, four images each, with 1, 2, 3 and 2 circles."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(DETECTORS, "model", Model)
    monkeypatch.setattr(Model, "calls", 0)
    for number in range(3):
        samples = tmp_path / "many" / f"{number:05d}" / "samples"
        samples.mkdir(parents=True)
        clause = {"class": "circle", "count": 2, **({"color": "red"} if number == 1 else {})}
        record = {"prompt": f"two circles {number}", "tag": "colors", "include": [clause]}
        if number != 2:
            record["exclude"] = [{"class": "circle", "count": 3}]
        (samples.parent / "metadata.jsonl").write_text(json.dumps(record))
        for index, circles in enumerate((1, 2, 3, 2)):
            image = np.zeros((8, 8, 3), dtype=np.uint8)
            image[:, : 2 * circles : 2] = 255 - number
            write_png(image, samples / f"{index:04d}.png")
    return tmp_path / "many"


CHOSEN = ("--detector", "model")


def test_rules_rerun_without_a_model(folder: Path, sanactl: Program) -> None:
    *images, scaling, score = sanactl("eval", "geneval", folder, *CHOSEN)
    assert Model.calls == 12
    assert [r["correct"] for r in images] == [False, True, False, True] * 2 + [False, True, True, True]
    assert (score["metric"], score["value"]) == ("geneval", round(7 / 12, 6))
    assert score["correct_prompts"] == 1.0
    lines = [json.loads(line) for line in Path("geneval.detections.jsonl").read_text().splitlines()]
    assert len(lines) == 12
    assert lines[0]["size"] == [8, 8]
    assert lines[4]["objects"][0]["color"] == "red"
    assert "color" not in lines[0]["objects"][0]

    again = sanactl("eval", "geneval", folder, *CHOSEN)
    assert [r["correct"] for r in again[:12]] == [r["correct"] for r in images]
    assert again[12:] == [scaling, score]
    assert "the detections of 12 images were in geneval.detections.jsonl already" in sanactl.said
    *images, scaling, other = sanactl("eval", "geneval", folder, *CHOSEN, "--rules", "reward")
    assert Model.calls == 12
    assert [r["correct"] for r in images] == [False, True, False, True] * 3
    assert images[0]["reason"] == "expected circle==2, found 1"
    assert (other["metric"], other["value"]) == ("reward_rules", 0.5)
    assert "GenEval" not in other["protocol"] + scaling["protocol"]

    sanactl("eval", "geneval", folder, *CHOSEN, "--detections", "off")
    assert Model.calls == 24


def test_detections_of_another_detector_or_image_are_not_taken(
    folder: Path, sanactl: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    sanactl("eval", "geneval", folder, *CHOSEN, "--detections", "kept.jsonl")
    monkeypatch.setattr(Model, "digest", "sha256:8")
    sanactl("eval", "geneval", folder, *CHOSEN, "--detections", "kept.jsonl")
    assert Model.calls == 24
    write_png(np.full((8, 8, 3), 9, dtype=np.uint8), folder / "00000/samples/0000.png")
    sanactl("eval", "geneval", folder, *CHOSEN, "--detections", "kept.jsonl")
    assert Model.calls == 26  # a batch
    text = Path("kept.jsonl").read_text()
    Path("kept.jsonl").write_text(text.replace('"mask": [', '"mask": [1, '))
    assert "are damaged" in sanactl.fails("eval", "geneval", folder, *CHOSEN, "--detections", "kept.jsonl")


def test_kept_detections_are_the_same_to_the_last_bit(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    detector = Model()
    file = KeptDetections(tmp_path / "kept.jsonl", detector)
    (tmp_path / "a.png").write_bytes(b"a")
    found = [
        Detected(
            "circle",
            None,
            float(np.float32(rng.random())),
            tuple(rng.random(4) * 99),
            rng.random((7, 5)) < 0.5,
        )
        for _ in range(3)
    ]
    found.append(Detected("circle", "red", 0.5, BOX))
    file.put([(tmp_path / "a.png", detections_line((7, 5), found))])
    again = KeptDetections(tmp_path / "kept.jsonl", detector).get(tmp_path / "a.png")
    assert again is not None
    for a, b in zip(found, again, strict=True):
        assert (a.name, a.color, a.score, a.box) == (b.name, b.color, b.score, b.box)
        assert (a.mask is None) == (b.mask is None)
        if a.mask is not None and b.mask is not None:
            assert np.array_equal(a.mask, b.mask)


def test_runs_are_cocos() -> None:
    mask = np.array([[0, 1, 1], [0, 1, 0]], dtype=bool)
    assert to_runs(mask) == [2, 3, 1]
    assert to_runs(~mask) == [0, 2, 3, 1]
    for each in (mask, ~mask, np.zeros((3, 2), dtype=bool), np.ones((3, 2), dtype=bool)):
        assert np.array_equal(from_runs(to_runs(each), each.shape), each)
    with pytest.raises(ValueError, match="another size"):
        from_runs([2, 3], (2, 3))


@pytest.mark.parametrize(
    ("removed", "said"),
    [
        ("00001/samples/0003.png", "1 images are missing; 00001 has 3 of 4"),
        ("00001/samples/0001.png", "1 images are missing; 00001 has 3 of 4"),
        ("00001/samples", "4 images are missing; 00001 has 0 of 4"),
        ("00001", "1 prompt folders are missing, the first 00001"),
    ],
)
def test_missing_images_are_an_error(removed: str, said: str, folder: Path, sanactl: Program) -> None:
    path = folder / removed
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert said in sanactl.fails("eval", "geneval", folder, *CHOSEN)
    assert Model.calls == 0
    *images, score = sanactl("eval", "geneval", folder, *CHOSEN, "--allow-missing")
    assert score["images"] == len([r for r in images if r["kind"] == "image"]) < 12


def test_records_of_which_some_are_missing(folder: Path, sanactl: Program) -> None:
    *images, _, _ = sanactl("eval", "geneval", folder, *CHOSEN)
    lines = [json.dumps(r) for r in images]
    said = sanactl("eval", "geneval", "-", *CHOSEN, stdin="\n".join(lines[:-1]), code=1)
    assert "1 images are missing; 'two circles 2' has 3 of 4" in sanactl.said
    assert len(said) == 11
    sanactl("eval", "geneval", "-", *CHOSEN, "--allow-missing", stdin="\n".join(lines[:-1]))
    # A judge's winners are not all images that were sampled.
    won = [json.dumps({**r, "judge": "x", "rank": 0}) for r in images[::4]]
    *_, score = sanactl("eval", "geneval", "-", *CHOSEN, stdin="\n".join(won))
    assert score["correct_prompts"] == 0


def test_the_reward_servers_rules() -> None:
    def verdict(count: int, rules: str, **clause: Any) -> bool:
        found = [Detected("circle", "red", 0.99, (20.0 * i, 0.0, 20.0 * i + 9, 9.0)) for i in range(count)]
        record = {"tag": "counting", "include": [{"class": "circle", "count": 2, **clause}],
                  "exclude": [{"class": "circle", "count": 4}]}  # fmt: skip
        return bool(score_image(found, record, rules=RULES[rules])["correct"])

    assert [verdict(n, "geneval") for n in range(5)] == [False, False, True, True, False]
    assert [verdict(n, "reward") for n in range(5)] == [False, False, True, False, False]
    assert verdict(2, "reward", color="red")
    assert not verdict(2, "reward", color="blue")


def test_other_rules_are_one_line(folder: Path, sanactl: Program) -> None:
    said = sanactl.fails("eval", "geneval", folder, *CHOSEN, "--rules", "moon", code=2)
    assert "no rules 'moon'; there are: geneval, reward" in said
