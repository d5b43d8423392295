"""Training the judge: it can be stopped, it refuses what it must, what it saves is what it learned."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sanactl.errors import InputError, OutputExistsError, UsageError
from sanactl.files.images import write_png
from sanactl.files.progress import Progress
from sanactl.judging.backends.vlm import VlmJudge
from sanactl.scoring.agreement import auc
from sanactl.shapes.prompts import load_eval_prompts, sample_prompt, scene_for
from sanactl.shapes.render import render
from sanactl.training.lock import TargetLock
from sanactl.world import train_judge as module
from sanactl.world.judge_measure import agreement, selection
from sanactl.world.judge_network import JudgeNetwork, pixels
from sanactl.world.judge_pool import flawed_pool
from sanactl.world.judge_questions import own_question
from sanactl.world.judge_settings import JudgeTraining, _schedule
from sanactl.world.train_judge import new_judge, train_judge

SMALL: dict[str, Any] = {"width": 32, "vision_layers": 1, "text_layers": 2}
SHORT: dict[str, Any] = {
    "warmup_steps": 2,
    "steps": 3,
    "batch_size": 4,
    "questions": 2,
    "pool_size": 12,
    "save_every": 1,
}
SETTINGS = JudgeTraining(**SHORT, sizes=SMALL)


class Stop(Progress):
    """Stops the run after so many steps, as Ctrl-C does."""

    def __init__(self, after: int) -> None:
        self.left, self.what = after, ""

    def start(self, total: int | None, what: str, *, done: int = 0) -> None:
        self.what = what

    def advance(self, count: int = 1, **fields: str) -> None:
        self.left -= count if self.what == "judge" else 0
        if self.left < 0:
            raise KeyboardInterrupt


@pytest.fixture(autouse=True)
def _few_held_out(monkeypatch):
    monkeypatch.setattr(module, "_HELD_OUT_RENDERED", 8)


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def sampled_records(folder: Path, prompts: int, each: int) -> list[dict]:
    """Records like those of `sample`: of each prompt's images every second one is right."""
    rng = np.random.default_rng(0)
    records = []
    for number in range(prompts):
        record = sample_prompt(rng)
        for index in range(each):
            shown = record if index % 2 else sample_prompt(rng)
            path = folder / f"{number}-{index}.png"
            write_png(render(scene_for(shown, rng)), path)
            extra = {
                "kind": "image",
                "path": str(path),
                "prompt_id": str(number),
                "samples": each,
                "index": index,
            }
            records.append({**record, **extra})
    return records


def test_a_stopped_run_ends_as_an_undisturbed_one(tmp_path):
    figures = train_judge(None, tmp_path / "a", SETTINGS)
    with pytest.raises(KeyboardInterrupt):
        train_judge(None, tmp_path / "b", SETTINGS, progress=Stop(3))
    assert not (tmp_path / "b").exists()
    again = train_judge(None, tmp_path / "b", SETTINGS)
    assert weights(tmp_path / "a") == weights(tmp_path / "b")
    assert figures == again
    assert not list(tmp_path.glob(".*"))
    assert {"balanced_accuracy", "auc", "accuracy", "yes_rate"} <= set(figures)


def test_from_labelled_samples_and_on_from_a_judge(tmp_path):
    train_judge(None, tmp_path / "first", SETTINGS)
    records = sampled_records(tmp_path, prompts=30, each=2)
    settings = JudgeTraining(**{**SHORT, "warmup_steps": 0}, start=tmp_path / "first")
    figures = train_judge(records, tmp_path / "second", settings)
    assert figures["one"] <= figures["ceiling"] <= 1
    assert {"best", "gap_closed"} <= set(figures)
    judge = VlmJudge.load(str(tmp_path / "second"), device="cpu")
    assert judge.model.dtype == torch.float32
    assert weights(tmp_path / "second") != weights(tmp_path / "first")


class Told(Stop):
    """Keeps at which step the training began."""

    begun: int | None = None

    def start(self, total: int | None, what: str, *, done: int = 0) -> None:
        super().start(total, what, done=done)
        self.begun = done if what == "judge" else self.begun


def test_a_stopped_run_is_known_by_its_images_and_not_by_their_places(tmp_path):
    """Moved, they are the same images; of other content under the same name, they are not. So with a judge to start from."""
    (tmp_path / "images").mkdir()
    records = sampled_records(tmp_path / "images", prompts=30, each=2)
    train_judge(None, tmp_path / "first", SETTINGS)

    def began(records: list[dict], start: Path) -> int | None:
        told = Told(2)
        with pytest.raises(KeyboardInterrupt):
            settings = JudgeTraining(**{**SHORT, "steps": 9}, start=start)
            train_judge(records, tmp_path / "judge", settings, progress=told)
        return told.begun

    assert began(records, tmp_path / "first") == 0
    (tmp_path / "images").rename(tmp_path / "moved")
    (tmp_path / "first").rename(tmp_path / "begin")
    moved = [{**r, "path": r["path"].replace("/images/", "/moved/")} for r in records]
    assert began(moved, tmp_path / "begin") == 2
    write_png(np.full((64, 64, 3), 7, np.uint8), Path(moved[3]["path"]))
    assert began(moved, tmp_path / "begin") == 0
    assert began(moved, tmp_path / "begin") == 2
    config = tmp_path / "begin" / "processor_config.json"
    config.write_text(config.read_text() + " ")
    assert began(moved, tmp_path / "begin") == 0


def test_one_run_at_a_time_and_a_learning_rate(tmp_path):
    with TargetLock(tmp_path / "judge"), pytest.raises(InputError, match="another run is making it"):
        train_judge(None, tmp_path / "judge", SETTINGS)
    for rate in (float("nan"), float("inf"), 0.0):
        with pytest.raises(UsageError, match="positive"):
            replace(SETTINGS, learning_rate=rate)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("length", [1, 2, 50, 10_000])
def test_the_learning_rate_ends_at_zero(length):
    rates = [_schedule(step, length) for step in range(length)]
    assert max(rates) == 1
    assert length == 1 or rates[-1] == pytest.approx(0, abs=1e-12)


def test_the_network_answers_as_the_judge_that_it_becomes():
    """Questions after a cached image, as training asks them, and the dialogue through processor and generate."""
    model, processor = new_judge(seed=1, **SMALL)
    network = JudgeNetwork(model, processor.tokenizer).eval()
    pool = flawed_pool(6, seed=2)
    views = [pool.view(i, False) for i in range(len(pool))]
    questions = [own_question(v) for v in views]
    with torch.no_grad():
        scores = network.answer_scores(network.see(pixels(views)), questions)
    verdicts = VlmJudge(model, processor, "it").judge(list(pool.images), pool.records)
    assert scores.tolist() == pytest.approx([v.yes_logprob - v.no_logprob for v in verdicts], abs=1e-4)


def test_evaluation_prompts_are_refused(tmp_path):
    record = {**load_eval_prompts()[0], "kind": "image", "path": "x.png"}
    with pytest.raises(InputError, match="eval split"):
        train_judge([record], tmp_path / "judge", SETTINGS)
    assert not (tmp_path / "judge").exists()


def test_bad_settings(tmp_path):
    with pytest.raises(UsageError, match="positive"):
        replace(SETTINGS, batch_size=0)
    with pytest.raises(InputError, match="no judge to start from"):
        train_judge(None, tmp_path / "judge", replace(SETTINGS, start=tmp_path))
    with pytest.raises(InputError, match="no image records"):
        train_judge([], tmp_path / "judge", SETTINGS)
    (tmp_path / "judge").mkdir()
    with pytest.raises(OutputExistsError):
        train_judge(None, tmp_path / "judge", SETTINGS)


def test_figures():
    truth = np.array([True, True, False, False])
    assert auc(np.array([4.0, 3, 2, 1]), truth) == 1
    assert auc(np.array([1.0, 1, 1, 1]), truth) == 0.5
    assert auc(np.array([4.0, 1, 2, 3]), truth) == 0.5
    assert auc(np.array([1.0, 2]), np.array([True, True])) == 0.5
    figures = agreement(np.array([1.0, -1, -1, -1]), truth, ["a", "a", "b", "b"])
    assert figures["balanced_accuracy"] == 0.75
    assert (figures["accuracy_a"], figures["accuracy_b"]) == (0.5, 1.0)
    picked = selection(
        np.array([0.1, 0.9, 0.3, 0.2]), np.array([False, True, False, True]), ["p", "p", "q", "q"]
    )
    assert picked == {"one": 0.5, "best": 0.5, "ceiling": 1.0, "gap_closed": 0.0}
    assert selection(np.array([1.0]), np.array([True]), ["p"]) == {}


@pytest.mark.slow
def test_a_short_training_sees(tmp_path):
    """About 5 minutes on one core: the answers to questions about faulty pictures are better than chance."""
    settings = JudgeTraining(warmup_steps=500, steps=500, pool_size=6000)
    figures = train_judge(None, tmp_path / "judge", settings)
    assert figures["balanced_accuracy"] > 0.6
    assert figures["auc"] > 0.65
