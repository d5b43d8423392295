"""The built-in world's Mask2Former and CLIP: trained for some steps, and used by `eval geneval` as any others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sanactl.files.images import read_image, write_png
from sanactl.files.progress import Progress
from sanactl.scoring.detectors.mask2former import Mask2FormerDetector
from sanactl.scoring.detectors.shapes import detect_shapes
from sanactl.scoring.geneval.rules import CONFIDENCE, CONFIDENCE_COUNTING
from sanactl.shapes.prompts import all_prompts, load_eval_prompts, scene_for
from sanactl.shapes.render import render
from sanactl.shapes.vocabulary import SHAPES
from sanactl.world import train_clip
from sanactl.world.detector_confidence import (
    agreement,
    class_logits,
    fit_confidences,
    object_counts,
    set_confidences,
)
from sanactl.world.detector_data import OBJECTS, Scenes, flawed_scenes, scenes_of, warped_scenes
from sanactl.world.detector_model import new_detector
from sanactl.world.detector_network import DetectorNetwork, Targets, soft_score
from sanactl.world.train_detector import write_detector
from tests.program import Program

PROMPTS = [p for p in load_eval_prompts() if p["tag"] in ("colors", "position")][::12]


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """Records of right pictures of some evaluation prompts, in images.jsonl."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    records = []
    for number, prompt in enumerate(PROMPTS):
        write_png(render(scene_for(prompt, np.random.default_rng(number)), 64), tmp_path / f"{number}.png")
        records.append({"kind": "image", "path": f"{number}.png", **prompt})
    Path("images.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    return records


def test_they_are_trained_and_score_images(images: list[dict], sanactl: Program) -> None:
    right = sanactl("make-shapes", "clip", "--rendered", "--pool-size", "80", "--steps", "60")
    assert right[0]["metric"] == "clip_colors_right"
    losses = sanactl("make-shapes", "detector", "--rendered", "--pool-size", "16", "--steps", "2")
    assert [r["metric"] for r in losses] == [
        f"detector_{n}_loss" for n in ("class", "mask", "dice", "odds", "dense")
    ]
    config = json.loads(Path("world/detector/config.json").read_text())
    assert [config["id2label"][str(n)] for n in range(len(SHAPES))] == list(SHAPES)

    chosen = ("--detector", "mask2former:world/detector", "--colors", "world/clip", "--device", "cpu")
    *scored, score = sanactl("eval", "geneval", "images.jsonl", *chosen)
    assert [r["path"] for r in scored] == [r["path"] for r in images]
    assert (score["detector"], score["colors"]) == ("mask2former:detector (port)", "clip")
    assert score["benchmark"] == f"{len(images)} of the built-in world's 360 prompts"
    judged = sanactl("judge", "images.jsonl", "--model", "oracle:mask2former:world/detector",
                     "--judge-option", "colors=world/clip", "--device", "cpu")  # fmt: skip
    assert {r["judge"] for r in judged} == {"oracle:mask2former:world/detector"}
    by_path = {r["path"]: r["correct"] for r in scored}
    assert all((r["verdict"] == "yes") == by_path[r["path"]] for r in judged)

    # Colours are easy: sixty steps are enough.
    detector = Mask2FormerDetector("world/detector", device="cpu", colors="world/clip")
    right = []
    for record in images:
        image = read_image(Path(record["path"]))
        right += [detector.colors(image, [d], d.name) == [d.color] for d in detect_shapes(image)]
    assert sum(right) >= 0.9 * len(right) > 9


def test_evaluation_prompts_are_refused(images: list[dict], sanactl: Program) -> None:
    for part in ("clip", "detector"):
        said = sanactl.fails("make-shapes", part, "images.jsonl", "--world", ".")
        assert "is of the eval split" in said
    assert "--rendered takes no records" in sanactl.fails(
        "make-shapes", "clip", "images.jsonl", "--rendered", "--world", ".", code=2
    )


def test_soft_scores_are_on_the_side_of_the_score() -> None:
    scores = np.linspace(0, 1, 1001, dtype=np.float32)
    soft = soft_score(scores)
    for limit in (CONFIDENCE, CONFIDENCE_COUNTING):
        assert ((soft > limit) == (scores >= np.float32(limit))).all()
    assert (np.diff(soft) >= 0).all()
    # A model that is in doubt about the side has its mean at the confidence.
    for limit in (CONFIDENCE, CONFIDENCE_COUNTING):
        below, above = soft_score(np.array([limit - 1e-4, limit + 1e-4], dtype=np.float32))
        assert (below + above) / 2 == pytest.approx(limit, abs=2e-3)


def test_targets_are_the_programmatic_detectors() -> None:
    scenes = flawed_scenes(6, seed=0)
    targets = Targets(scenes, np.array([False, True] * 3))
    count = int((scenes.objects[..., 0] > 0).sum())
    assert len(targets.mask) == count == len(targets.score) > 6
    assert targets.mask.sum() == (scenes.owners > 0).sum()
    sure = scenes.objects[scenes.objects[..., 0] > 0][:, 0]
    assert np.allclose(1 / (1 + np.exp(-targets.odds.numpy())), sure.clip(0.0067, 0.9933), atol=1e-3)
    for picture, place, mask in zip(targets.picture, targets.place, targets.mask, strict=True):
        own = scenes.owners[picture] == int(place) + 1
        assert torch.equal(mask.bool(), torch.from_numpy((own[:, ::-1] if picture % 2 else own).copy()))
    assert scenes.objects.shape == (6, OBJECTS, 3)


def test_warped_pictures_are_others_with_what_is_found_in_them() -> None:
    scenes = flawed_scenes(3, seed=1)
    warped = warped_scenes(scenes, 6, seed=0)
    assert len(warped) == 6
    assert len({image.tobytes() for image in (*scenes.images, *warped.images)}) == 9
    again = scenes_of(warped.images, 6)
    assert again.digest() == warped.digest()
    assert warped_scenes(scenes, 3, seed=0).digest() == warped.part(np.arange(3)).digest()
    # Moved by a few pixels, not thrown about: most of a picture stays background or object as it was.
    moved = [(a > 0) == (b > 0) for a, b in zip(scenes.owners, warped.owners, strict=False)]
    assert min(same.mean() for same in moved) > 0.6


def test_objects_have_queries_of_their_own_and_the_nearest_at_the_start() -> None:
    record = next(p for p in all_prompts("train") if p["tag"] == "counting" and p["include"][0]["count"] == 4)
    image = render(scene_for(record, np.random.default_rng(0)), 64)
    scenes = scenes_of([image], 1)
    targets = Targets(scenes, np.array([False]))
    network = DetectorNetwork(new_detector(0))
    queries = network.model.config.num_queries
    logits, masks = torch.zeros(1, queries, 7), torch.zeros(1, queries, 32, 32)
    chosen = network.assign(logits, masks, targets, near_weight=2.0)
    assert len(set(chosen.tolist())) == 4
    far = (targets.middle[:, None] - network.grid).norm(dim=-1)
    assert (far.gather(1, chosen[:, None])[:, 0] <= far.min(1).values + 0.15).all()


def test_confidences_are_fitted_to_the_programmatic_detectors() -> None:
    scenes = flawed_scenes(40, seed=3)
    counts = object_counts(scenes)
    # A detector that is right but for its scale: its logits are those of the scores, flattened and moved.
    logits = np.zeros((len(scenes), OBJECTS, len(SHAPES) + 1))
    logits[..., :-1] = -20.0
    score = scenes.objects[..., 0].astype(np.float64).clip(1e-3, 1 - 1e-3)
    picture, place = np.nonzero(score > 1e-3)
    logits[picture, place, scenes.objects[picture, place, 1].astype(int)] = np.log(score / (1 - score))[
        picture, place
    ]
    assert agreement(logits, counts, 1, 0) == 1
    assert fit_confidences(logits, counts) == (1, 0)
    flat = logits / 1.5
    flat[..., -1] -= 0.5
    factor, summand = fit_confidences(flat, counts)
    assert agreement(flat, counts, factor, summand) > agreement(flat, counts, 1, 0)
    assert factor > 1 and summand > 0
    assert fit_confidences(logits[:0], counts[:0]) == (1, 0)

    model = new_detector(2)
    before = class_logits(model, scenes)
    factor, summand = set_confidences(model, scenes)
    before *= factor
    before[..., -1] += summand
    assert np.allclose(class_logits(model, scenes), before, atol=1e-3)


def test_what_is_written_has_the_same_masks_with_a_sure_inside(tmp_path: Path) -> None:
    model = new_detector(1).eval()
    write_detector(model, tmp_path)
    detector = Mask2FormerDetector(str(tmp_path), device="cpu", colors="off")
    image = render(scene_for(PROMPTS[0], np.random.default_rng(0)), 64)
    logits, masks, sizes = detector.outputs([image])[0]
    assert sizes.padded == (64, 64)
    with torch.no_grad():
        plain = model(Targets(Scenes(image[None], np.zeros((1, 64, 64), np.uint8), np.zeros((1, OBJECTS, 3), np.float32)),
                              np.array([False])).pixels)  # fmt: skip
    assert torch.allclose(plain.class_queries_logits[0], logits, atol=0.05)
    assert torch.allclose(plain.masks_queries_logits[0] * 8, masks, atol=0.2)


def test_a_stopped_clip_is_the_undisturbed_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_clip, "SAVE_EVERY", 2)

    class Stopper(Progress):
        """Ends the run after so many steps."""

        left = 3

        def advance(self, count: int = 1, **fields: str) -> None:
            if "loss" in fields:
                self.left -= count
                if not self.left:
                    raise KeyboardInterrupt

    few: dict[str, Any] = {"steps": 5, "pool_size": 12}
    whole = train_clip.train_clip(None, tmp_path / "whole", **few)
    with pytest.raises(KeyboardInterrupt):
        train_clip.train_clip(None, tmp_path / "parts", progress=Stopper(), **few)
    assert not (tmp_path / "parts").exists() and list(tmp_path.glob(".parts.training/step-*2"))
    assert train_clip.train_clip(None, tmp_path / "parts", **few) == whole
    one, two = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "parts"))
    assert one == two and not list(tmp_path.glob(".parts.*"))
