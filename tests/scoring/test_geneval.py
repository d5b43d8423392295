"""`eval geneval` on real pictures of the built-in world: verdicts, scores, selections, the scaling curve."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest

from sanactl.errors import InputError
from sanactl.files.images import write_png
from sanactl.records.records import dumps
from sanactl.scoring.detectors.protocol import Detected
from sanactl.scoring.geneval.evaluate import (
    evaluate_geneval,
    read_geneval_folder,
    scaling_curves,
    scaling_record,
    selection,
)
from sanactl.scoring.geneval.rules import TASKS
from sanactl.scoring.geneval.scaling import first_hit_record
from sanactl.shapes.prompts import load_eval_prompts, scene_for
from sanactl.shapes.render import render

IMAGES = 4


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Records of two prompts a task, 4 images each; of the n-th prompt's the first n mod 4 are wrong."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    prompts = [r for tag in TASKS for r in [p for p in load_eval_prompts() if p["tag"] == tag][:2]]
    records = []
    for number, prompt in enumerate(prompts):
        other = prompts[(number + 5) % len(prompts)]
        for index in range(IMAGES):
            wrong = index < number % 4
            path = folder / f"{number:02d}-{index}.png"
            write_png(render(scene_for(other if wrong else prompt, rng), 64), path)
            record = {
                "kind": "image",
                "path": str(path),
                "seed": index,
                "checkpoint": "base.st",
                "mine": number,
            }
            records.append({**prompt, **record})
    return records


def test_every_record_comes_back_with_its_verdict_and_a_score_follows(pictures):
    found = evaluate_geneval(iter(pictures))
    assert iter(found) is found
    *images, scaling, score = found
    assert [{k: r[k] for k in p} for r, p in zip(images, pictures, strict=True)] == pictures
    assert all(r["correct"] == (not r["reason"]) for r in images)
    assert all(d["score"] > 0.3 and "mask" not in d for r in images for d in r["detections"])
    wrong = sum(not r["correct"] for r in images)
    assert 0 < wrong <= sum(n % 4 for n in range(12))

    assert score["metric"] == "geneval"
    assert score["detector"] == images[0]["detector"] == "shapes-1"
    assert list(score["tasks"]) == list(TASKS)
    means = [np.mean([r["correct"] for r in images if r["tag"] == tag]) for tag in TASKS]
    assert [t["value"] for t in score["tasks"].values()] == pytest.approx(means)
    assert score["value"] == pytest.approx(np.mean(means))
    assert score["ci"][0] <= score["value"] <= score["ci"][1]
    assert (score["images"], score["prompts"], score["checkpoint"]) == (48, 12, "base.st")
    assert score["selection"] == "single"
    assert scaling["metric"] == "scaling"
    assert scaling["value"] == pytest.approx(score["value"])
    assert [dumps(r) for r in (*images, scaling, score)]


def test_records_are_scored_as_they_come(pictures):
    def stream():
        yield pictures[0]
        raise KeyboardInterrupt

    found = evaluate_geneval(stream())
    assert next(found)["path"] == pictures[0]["path"]
    with pytest.raises(KeyboardInterrupt):
        next(found)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"tag": None}, "no 'tag'"),
        ({"include": [{"class": "bench", "count": 1}]}, "knows no 'bench'"),
        ({"path": "nowhere.png"}, "nowhere.png: no such image"),
    ],
)
def test_what_cannot_be_scored_is_refused(pictures, change, fault):
    with pytest.raises(InputError, match=fault):
        list(evaluate_geneval([{**pictures[0], **change}]))


def test_twice_the_same_image_tiny_images_and_nothing_are_refused(pictures, tmp_path):
    with pytest.raises(InputError, match="comes twice"):
        list(evaluate_geneval([pictures[0], pictures[0]]))
    write_png(np.zeros((16, 16, 3), dtype=np.uint8), tmp_path / "tiny.png")
    with pytest.raises(InputError, match=r"tiny.png: 16 x 16 pixels; .* takes 32 a side"):
        list(evaluate_geneval([{**pictures[0], "path": str(tmp_path / "tiny.png")}]))
    with pytest.raises(InputError, match="no image records"):
        list(evaluate_geneval([]))


def test_colours_can_come_from_a_classifier_that_sees_the_image(pictures):
    class Toy:
        label, classes, batch_size = "toy-1", frozenset({"circle"}), 4
        digest: str | None = "sha256:1"

        def detect(self, images, classes):
            assert classes == self.classes
            return [[Detected("circle", None, 1.0, (0, 0, 9, 9))] for _ in images]

        def colors(self, image, objects, name):
            assert image.shape == (64, 64, 3)
            return ["red"] * len(objects)

    clause = {"class": "circle", "count": 1, "color": "red"}
    image, score = evaluate_geneval([{**pictures[0], "tag": "colors", "include": [clause]}], detector=Toy())
    assert image["correct"]
    assert image["detections"] == [{"class": "circle", "score": 1.0, "box": [0, 0, 9, 9]}]
    assert (score["detector"], score["detector_digest"]) == ("toy-1", "sha256:1")
    assert list(score["tasks"]) == ["colors"]


def test_selections_are_named():
    images = [{"prompt": "a", "id": i // 2} for i in range(4)]
    assert selection(images) == "single"
    kept = [{**r, "judge": "tiny", "rank": i % 2, "samples": 16} for i, r in enumerate(images)]
    assert selection(kept) == "best 2 of 16 by tiny"
    assert selection(kept[::2]) == "best-of-16 by tiny"
    assert selection([{**r, "samples": 2} for r in kept]) == "single"
    assert selection([{"prompt": "a", "rank": 0}]) == "best-of-n"


def test_the_number_of_drafts_is_part_of_a_selection():
    """`sample -n 16 | judge -k 2 | sample --redraw | judge`, and the same without the last judge."""
    redrawn = [{"prompt": "a", "id": i // 2, "samples": 2, "draft_samples": 16} for i in range(4)]
    assert selection(redrawn) == "best 2 of 16 drafts"
    assert selection([{**r, "samples": 1} for r in redrawn[::2]]) == "best-of-16 drafts"
    winners = [{**r, "judge": "tiny", "rank": 0} for r in redrawn[::2]]
    assert selection(winners) == "best-of-2 (of 16 drafts) by tiny"
    assert selection([winners[0], {**winners[1], "draft_samples": 9}]).startswith(
        "best-of-2 (of 9 to 16 drafts)"
    )
    assert selection([{**r, "draft_samples": 2} for r in redrawn]) == "single"


def judged(rng, prompts=6, images=8):
    for prompt in range(prompts):
        for index in range(images):
            correct = bool(rng.random() < 0.4)
            score = float(correct + rng.normal(0, 0.7))
            yield {"prompt": f"p{prompt}", "tag": TASKS[prompt % 3], "path": f"{prompt}-{index}.png"} | {
                "correct": correct,
                "judge_score": score,
                "judge": "tiny",
                "checkpoint": "base.st",
            }


def test_the_scaling_curve_lies_between_single_and_oracle():
    records = list(judged(np.random.default_rng(0)))
    curves = scaling_curves(records)
    judge, oracle = ([p["value"] for p in curves[name]] for name in ("judge", "oracle"))
    assert [p["at"] for p in curves["judge"]] == [p["at"] for p in curves["oracle"]] == [1, 2, 4, 8]
    rates = [np.mean([r["correct"] for r in records if r["tag"] == t]) for t in TASKS[:3]]
    assert judge[0] == pytest.approx(oracle[0]) == pytest.approx(np.mean(rates))
    assert all(j <= o + 1e-9 for j, o in zip(judge, oracle, strict=True))
    assert all(a <= b + 1e-9 for a, b in pairwise(oracle))
    for p in (*curves["judge"], *curves["oracle"]):
        assert p["ci"][0] <= p["value"] <= p["ci"][1]
    best: dict[str, list[tuple[float, bool]]] = {}
    for r in records:
        best.setdefault(r["prompt"], []).append((r["judge_score"], r["correct"]))
    assert judge[-1] == pytest.approx(np.mean([max(v)[1] for v in best.values()]))
    record = scaling_record(records)
    assert record["judge"] == "tiny"
    assert record["curves"] == curves
    assert (record["value"], record["ci"]) == (oracle[0], curves["oracle"][0]["ci"])
    assert record["checkpoint"] == "base.st"


def test_without_scores_only_the_oracle_is_drawn_and_without_verdicts_nothing():
    records = list(judged(np.random.default_rng(0)))
    curves = scaling_curves([{k: v for k, v in r.items() if k != "judge_score"} for r in records])
    assert curves == {"oracle": scaling_curves(records)["oracle"]}
    with pytest.raises(InputError, match="no verdict"):
        scaling_curves([{"prompt": "a", "path": "a.png"}])
    with pytest.raises(InputError, match="no image records"):
        scaling_curves([])


def test_a_folder_in_genevals_layout_is_read_in_order(pictures, tmp_path):
    for number, name in ((0, "00000"), (10, "00010"), (2, "00002")):
        samples = tmp_path / name / "samples"
        samples.mkdir(parents=True)
        record = {k: pictures[4 * number][k] for k in ("tag", "include", "prompt")}
        own = {"id": "7"} if number == 10 else {}
        (tmp_path / name / "metadata.jsonl").write_text(json.dumps({**record, **own}))
        for index in (1, 0, 10):
            write_png(np.full((64, 64, 3), 128, dtype=np.uint8), samples / f"{index:04d}.png")
        (samples / "grid.png").touch()
    (tmp_path / "notes").mkdir()
    records = list(read_geneval_folder(tmp_path))
    assert [(r["prompt_id"], r["index"]) for r in records] == [
        (i, n) for i in ("00000", "00002", "7") for n in (0, 1, 10)
    ]
    *images, _, score = evaluate_geneval(records)
    assert len(images) == score["images"] == 9
    assert score["value"] == 0
    assert images[0]["reason"].startswith("expected circle>=1, found 0")


@pytest.mark.parametrize(
    ("files", "fault"),
    [
        ({}, "no prompt folders"),
        ({"00000/samples/0000.png": ""}, "metadata.jsonl: no such file"),
        ({"00000/metadata.jsonl": "{", "00000/samples/0000.png": ""}, "not one line of JSON"),
        ({"00000/metadata.jsonl": "{}", "00000/samples/0000.png": ""}, "no 'prompt'"),
        ({"00000/metadata.jsonl": '{"prompt": "a"}'}, "no images"),
    ],
)
def test_folders_that_are_not_whole_are_refused(tmp_path, files, fault):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=fault):
        list(read_geneval_folder(tmp_path))
    with pytest.raises(InputError, match="cannot be read"):
        list(read_geneval_folder(tmp_path / "none"))


def counted(records):
    """The records with what they cost, and a judge's answers."""
    for r in records:
        yield {
            **r,
            "flops": 10.0,
            "judge_flops": 2.0,
            "steps": 6,
            "verdict": "yes" if r["judge_score"] > 0.5 else "no",
        }


def test_points_say_what_they_cost_and_gain():
    records = list(counted(judged(np.random.default_rng(0))))
    record = scaling_record(records)
    judge, oracle = (record["curves"][name] for name in ("judge", "oracle"))
    assert [p["cost"] for p in judge[:2]] == [{"images": 1, "flops": 10.0}, {"images": 2, "flops": 24.0}]
    assert oracle[-1]["cost"] == {"images": 8, "flops": 80.0}
    for point in (*judge, *oracle):
        assert point["gain"] == pytest.approx(point["value"] - record["value"], abs=2e-6)
        assert point["gain_ci"][0] - 1e-6 <= point["gain"] <= point["gain_ci"][1] + 1e-6
    assert record["steps"] == 6 and record["prompts_digest"].startswith("sha256:")
    other = scaling_record([{**r, "prompt": r["prompt"] + "!"} for r in records])
    assert other["prompts_digest"] != record["prompts_digest"]
    unknown = scaling_record([{k: v for k, v in r.items() if k != "judge_flops"} for r in records])
    assert [p["cost"].get("flops") for p in unknown["curves"]["judge"]] == [10.0, None, None, None]


def test_the_mean_of_the_best_four():
    records = list(counted(judged(np.random.default_rng(0))))
    record = scaling_record(records, top=4)
    judge = record["curves"]["judge"]
    assert [p["at"] for p in judge] == [4, 8] and record["top"] == 4
    # All four of four are one image each, and nothing needs a judge.
    assert judge[0]["value"] == pytest.approx(record["value"]) and judge[0]["cost"]["flops"] == 40.0
    best = scaling_record(records)["curves"]["judge"][-1]["value"]
    assert record["value"] < judge[-1]["value"] < best


def test_a_search_draws_fewer_images():
    records = list(counted(judged(np.random.default_rng(0))))
    record, best = first_hit_record(records, size=2), scaling_record(records)
    judge, oracle = (record["curves"][name] for name in ("judge", "oracle"))
    assert [p["at"] for p in judge] == [1, 2, 4, 8] and record["round"] == 2
    assert [p["value"] for p in oracle] == [p["value"] for p in best["curves"]["oracle"]]
    assert [p["success"] for p in oracle] == [p["value"] for p in oracle]
    assert 2 <= judge[-1]["cost"]["images"] < 8 and judge[-1]["cost"]["flops"] == pytest.approx(
        12 * judge[-1]["cost"]["images"]
    )
    unsure = [{k: v for k, v in r.items() if k != "verdict"} for r in records]
    assert list(first_hit_record(unsure)["curves"]) == ["oracle"]


def test_the_command_has_both(pictures, tmp_path, sanactl):
    (tmp_path / "images.jsonl").write_text("".join(dumps(r) + "\n" for r in pictures))
    found = sanactl(
        "eval", "geneval", tmp_path / "images.jsonl", "--top", "3", "--round", "2", "-o", tmp_path / "s.jsonl"
    )
    scaling, first, score = found[-3:]
    assert [p["at"] for p in scaling["curves"]["oracle"]] == [3, 4] and first["metric"] == "first_hit"
    assert scaling["value"] == first["value"] == score["value"]
    *_, whole, _ = sanactl(
        "eval", "geneval", tmp_path / "images.jsonl", "--top", "9", "-o", tmp_path / "t.jsonl"
    )
    assert [p["at"] for p in whole["curves"]["oracle"]] == [4] and "all of them" in sanactl.said
