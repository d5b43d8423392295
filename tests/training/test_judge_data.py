"""What a judge learns from: labels, prompts and images that it refuses, what is held out, and the order of the images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sanactl.errors import InputError, OutputExistsError, UsageError
from sanactl.prompts.geneval.benchmark import geneval_prompts
from sanactl.shapes.prompts import load_eval_prompts
from sanactl.training.judge.choices import check_kind, tuning_settings
from sanactl.training.judge.data import split_records
from sanactl.training.judge.order import Order
from sanactl.training.judge.result import check_judge_target
from sanactl.training.judge.settings import TuningSettings
from sanactl.training.judge.tune import model_to_train
from tests.program import Program
from tests.training.judge_set import labelled, write_records


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return labelled(tmp_path_factory.mktemp("set"))


def split(records: list[dict[str, Any]], held_out: list[dict[str, Any]] | None = None, **more: Any) -> Any:
    return split_records(records, held_out, **{"label": "correct", "share": 0.3, **more})


def test_no_prompt_is_learned_and_measured(records: list[dict[str, Any]]) -> None:
    data = split(records)
    learned, kept = ({r["prompt"] for r in some} for some in (data.train, data.held_out))
    assert len(kept) == 4 and len(learned) == 8 and not learned & kept
    assert split(list(reversed(records))).held_out == list(reversed(data.held_out))
    # Equal in meaning: "B and A" for "A and B".
    turned = [
        {**r, "prompt": "four hearts and {}".format(r["prompt"].removesuffix(" and four hearts"))}
        for r in data.held_out
    ]
    assert split(data.train + data.held_out, turned).train == data.train
    assert split([*records, *records]).train == data.train


def test_the_identity_is_of_images_prompts_and_labels(records: list[dict[str, Any]], tmp_path: Path) -> None:
    data = split(records)
    for r in records:
        (tmp_path / Path(r["path"]).name).write_bytes(Path(r["path"]).read_bytes())
    moved = [{**r, "path": str(tmp_path / Path(r["path"]).name)} for r in records]
    assert split(moved).identity == data.identity
    assert split([{**r, "correct": not r["correct"]} for r in records]).identity != data.identity
    (tmp_path / Path(data.train[0]["path"]).name).write_bytes(Path(data.train[1]["path"]).read_bytes())
    assert split(moved).identity != data.identity


def test_what_is_refused(records: list[dict[str, Any]], tmp_path: Path) -> None:
    first = records[0]
    bare = [{k: v for k, v in r.items() if k != "correct"} for r in records]
    empty = tmp_path / "empty.png"
    empty.touch()
    text = tmp_path / "text.png"
    text.write_text("no image")
    geneval = next(p for p in geneval_prompts() if p["tag"] == "position")
    thing, _, other = geneval["prompt"].removeprefix("a photo of ").partition(" right of ")
    cases: list[tuple[list[dict[str, Any]], str]] = [
        ([], "no image records"),
        (bare, r"no record has a label in 'correct'.*eval geneval.*--label"),
        (
            [{**r, "correct": True} for r in records],
            "learn from are all right; a judge needs right and wrong",
        ),
        ([{**first, "correct": "perhaps"}, *records], "'perhaps', and not a label"),
        ([{**first, "correct": False}, *records], "two records of it differ in 'correct'"),
        ([{**r, "path": str(tmp_path / "gone.png")} for r in records[:1]] + records, "gone.png"),
        ([{**first, "path": str(empty)}, *records], "empty.png"),
        ([{**first, "path": str(text)}, *records], "text.png: not a readable image"),
        ([{**first, "path": str(tmp_path)}, *records], str(tmp_path)),
    ]
    for given, said in cases:
        with pytest.raises(InputError, match=said):
            split(given)
    assert other, geneval["prompt"]
    for prompt in (
        geneval["prompt"],
        f"A photo of {other} left of {thing}",
        load_eval_prompts()[-1]["prompt"],
    ):
        with pytest.raises(InputError, match=r"means one of .* a judge must not be trained on it"):
            split([{**r, "prompt": prompt} for r in records[:2]] + records)


def test_records_without_a_label_are_left_out(records: list[dict[str, Any]]) -> None:
    some = [{**records[0], "path": "unlabelled.png", "correct": None}, *records]
    assert split(some).train == split(records).train
    human = [{**r, "human": "yes" if r["correct"] else "no"} for r in records]
    data = split(human, label="human")
    assert data.label == "human" and data.sources == ()
    assert [data.truth(r) for r in data.train] == [r["correct"] for r in data.train]


@pytest.mark.parametrize("balance", [True, False])
def test_the_order_is_of_seed_and_step_alone(balance: bool) -> None:
    labels = [place < 3 for place in range(10)]
    order = Order(labels, 7, balance=balance)
    drawn = [place for step in range(10) for place in order.batch(step, 4)]
    assert drawn == [p for step in range(5) for p in Order(labels, 7, balance=balance).batch(step, 8)]
    assert Order(labels, 7, balance=balance).batch(8, 4) == drawn[32:36]
    assert drawn != [p for step in range(10) for p in Order(labels, 8, balance=balance).batch(step, 4)]
    if balance:
        assert all(labels[place] == (number % 2 == 0) for number, place in enumerate(drawn))
        assert sorted(drawn[1:14:2]) == list(range(3, 10)) and sorted(drawn[0:6:2]) == [0, 1, 2]
    else:
        assert sorted(drawn[:10]) == sorted(drawn[10:20]) == list(range(10))


def test_the_papers_settings() -> None:
    settings = TuningSettings().planned(2_000_000)
    assert (settings.learning_rate, settings.batch_size, settings.schedule) == (2e-5, 8, "cosine")
    assert (settings.steps, settings.warmup) == (250_000, 7_500)
    assert TuningSettings(epochs=0.1).planned(5).steps == 1
    assert TuningSettings(steps=3).planned(1000).steps == 3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lr": float("nan")}, "--lr nan"),
        ({"clip": float("inf")}, "--clip inf"),
        ({"epochs": 0.0}, "above 0"),
        ({"held_out_share": 1.0}, "--held-out-share 1"),
        ({"train": "some"}, "--train some: choose one of all"),
        ({"schedule": "magic"}, "--schedule magic"),
        ({"optimizer": "magic"}, "unknown optimizer"),
        ({"quantize": "3bit", "lora": 1}, "--quantize 3bit"),
        ({"quantize": "4bit"}, "needs --lora"),
        ({"lora": 4, "train": "llm"}, "exclude each other"),
        ({"merge": False}, "--no-merge is for --lora"),
        ({"precision": "fp16"}, "--precision fp16"),
    ],
)
def test_settings_that_there_are_not(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        tuning_settings(options)


def test_a_batch_is_shared_by_no_more_processes_than_it_has_images() -> None:
    with pytest.raises(UsageError, match="batch of 2 cannot be shared by 3 processes"):
        replace(TuningSettings(), batch_size=2).check(3)


def test_options_of_the_other_kind() -> None:
    check_kind(None, {"steps": 3, "lr": 1.0, "rendered": True})
    check_kind("x/y", {"steps": 3, "lora": 8, "balance": False})
    for model, options, said in (
        (None, {"lora": 8}, "--lora is for --model VLM"),
        (None, {"balance": False}, "--no-balance is for --model VLM"),
        (None, {"held_out": "x.jsonl"}, "--held-out is for --model VLM"),
        ("x/y", {"rendered": True}, "--rendered is for the built-in world's judge"),
        ("x/y", {"pool_size": 3}, "--pool-size is for"),
    ):
        with pytest.raises(UsageError, match=said):
            check_kind(model, options)


def test_models_and_targets_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    for name, error, said in (
        ("gone", InputError, "no such folder"),
        ("folder", InputError, "no model in this folder"),
        ("file", InputError, "a file"),
        ("oracle", UsageError, "no model of transformers"),
        ("http://host/v1#m", UsageError, "no model of transformers"),
    ):
        with pytest.raises(error, match=said):
            model_to_train(name)
    with pytest.raises(OutputExistsError):
        check_judge_target(Path("folder"), force=False, tracker=None)
    with pytest.raises(UsageError, match="magic"):
        check_judge_target(Path("new"), force=False, tracker="magic")


def test_the_command_says_one_line(
    records: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sanactl: Program
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    write_records(records, tmp_path / "r.jsonl")
    (tmp_path / "none.jsonl").write_text("")
    (tmp_path / "vlm").mkdir()
    (tmp_path / "vlm/config.json").write_text("{}")
    run = ["train-judge", "r.jsonl", "--model", "vlm"]
    assert "needs --lora" in sanactl.fails(*run, "--quantize", "4bit", code=2)
    assert "gone.jsonl" in sanactl.fails(*run, "--held-out", "gone.jsonl")
    assert "for --model VLM" in sanactl.fails("train-judge", "r.jsonl", "--lora", "2", code=2)
    assert "labelled images" in sanactl.fails("train-judge", "none.jsonl", "--model", "vlm")
    assert "no record has a label in 'human'" in sanactl.fails(*run, "--label", "human")
