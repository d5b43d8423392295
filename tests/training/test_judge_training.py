"""`train-judge --model`: it learns a rule, from the answer's token alone, and is stopped, shared and gone on with freely."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sanactl.errors import InputError, TrainingError, UsageError
from sanactl.judging.backends.vlm import VlmJudge
from sanactl.judging.backends.vlm_load import load_vlm
from sanactl.judging.registry import open_judge
from sanactl.training.judge.data import JudgeData, split_records
from sanactl.training.judge.gradient import AnswerGradient
from sanactl.training.judge.order import Order
from sanactl.training.judge.settings import TuningSettings
from sanactl.training.judge.trained import TrainedModel
from sanactl.training.judge.tune import _Run, tune_judge
from tests.judging.tiny_models import make
from tests.program import Program
from tests.training.judge_set import labelled, write_records

SETTINGS = TuningSettings(steps=4, batch_size=5, learning_rate=3e-3, held_out_share=0.3)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for family in ("smolvlm", "qwen3_vl"):
        make(family, folder / family)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> JudgeData:
    return split_records(labelled(tmp_path_factory.mktemp("set")), None, label="correct", share=0.3)


@pytest.fixture(scope="module")
def alone(models: Path, data: JudgeData, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The folder and the scores of an undisturbed run in one process."""
    target = tmp_path_factory.mktemp("alone") / "judge"
    return target, tune_judge(str(models / "smolvlm"), data, SETTINGS, target=target)["scores"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def weights(folder: str | Path, name: str = "model") -> dict[str, torch.Tensor]:
    return load_file(Path(folder) / f"{name}.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


@pytest.mark.parametrize("family", ["smolvlm", "qwen3_vl"])
def test_a_judge_learns_a_rule(models: Path, here: Path, sanactl: Program, family: str) -> None:
    write_records(labelled(here), here / "labelled.jsonl")
    run = ["train-judge", "labelled.jsonl", "--model", str(models / family), "--steps", "10", "--lr", "3e-3"]
    run += ["--device", "cpu", "-o", "mine"]
    scores = sanactl(*run, "--held-out-share", "0.5")
    found = {(r["metric"], r["training"]): r for r in scores}
    before, after = (found["judge_balanced_accuracy", when]["value"] for when in ("before", "after"))
    assert after > before + 0.3 and after > 0.9
    gain = found["judge_balanced_accuracy_gain", "gain"]
    assert gain["value"] == pytest.approx(after - before, abs=1e-5)
    assert {name for name, _ in found} >= {"judge_auc", "judge_pair_accuracy"}
    assert gain["prompts"] == 6 and gain["detector"] == "shapes-9"
    # The folder is a judge, and says whose labels it has.
    judge: Any = open_judge("mine", device="cpu")
    assert judge.identity["labels"] == "shapes-9"
    from transformers import AutoModelForImageTextToText

    assert type(AutoModelForImageTextToText.from_pretrained("mine")) is type(judge.model)
    lines = [json.loads(line) for line in Path("mine.train.jsonl").read_text().splitlines()]
    assert [p["step"] for p in lines] == list(range(1, 11)) and lines[-1]["loss"] < lines[0]["loss"]
    assert not list(here.glob(".mine*"))
    if family == "qwen3_vl":
        return
    # The same command finds its result, and another one is refused.
    written = Path("mine/model.safetensors").stat().st_mtime_ns
    assert sanactl(*run, "--held-out-share", "0.5") == scores
    assert Path("mine/model.safetensors").stat().st_mtime_ns == written
    assert "exists" in sanactl.fails(*run, "--held-out-share", "0.5", "--seed", "1", code=2)


def opened(place: Path, settings: TuningSettings) -> tuple[VlmJudge, TrainedModel]:
    model, processor = load_vlm(str(place), device=torch.device("cpu"), dtype=torch.float32)
    return VlmJudge(model, processor, "it"), TrainedModel(model, settings, "it")


@pytest.mark.parametrize("workers", [True, False])
def test_the_loss_is_that_of_the_answers_token(models: Path, data: JudgeData, workers: bool) -> None:
    """Against the cross-entropy of each question alone, without padding, by the whole model's logits."""
    from accelerate import Accelerator

    from sanactl.files.images import read_image
    from sanactl.model.cpu import Workers

    judge, trained = opened(models / "qwen3_vl", SETTINGS)
    order = Order([data.truth(r) for r in data.train], 0, balance=True)
    with Workers() if workers else contextlib.nullcontext() as threads:
        gradient = AnswerGradient(judge, data, order, SETTINGS, Accelerator(cpu=True), trained, threads)
        total = torch.zeros(4)
        gradient.leave(1, total)
    found = {name: p.grad.clone() for name, p in trained.named if p.grad is not None}
    trained.model.zero_grad(set_to_none=True)
    chosen = [data.train[place] for place in order.batch(1, 5)]
    assert {data.truth(r) for r in chosen} == {False, True}
    losses = []
    for record in chosen:
        inputs = judge.inputs([read_image(Path(record["path"]))], [record["prompt"]])
        (wanted,) = judge.processor.tokenizer.encode("yes" if data.truth(record) else "no")
        logits = trained.model(**inputs).logits[0, -1]
        losses.append(torch.nn.functional.cross_entropy(logits, torch.tensor(wanted)))
    loss = torch.stack(losses).mean()
    loss.backward()
    assert total[0].item() == pytest.approx(loss.item(), rel=1e-5)
    assert found.keys() == {name for name, p in trained.named if p.grad is not None}
    for name, parameter in trained.named:
        if parameter.grad is not None:
            torch.testing.assert_close(found[name], parameter.grad, rtol=1e-3, atol=1e-6)


def test_a_killed_run_ends_as_an_undisturbed_one(
    models: Path, data: JudgeData, alone: tuple[Path, Any], here: Path
) -> None:
    """By SIGKILL after a step whose state is saved, and by SIGTERM."""
    model, settings = str(models / "smolvlm"), replace(SETTINGS, save_every=1)

    def at_step(step: int, number: int) -> Any:
        return lambda point: os.kill(os.getpid(), number) if point["step"] == step else None

    child = os.fork()
    if child == 0:
        try:
            tune_judge(model, data, settings, target=Path("out"), on_step=at_step(2, signal.SIGKILL))
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert (here / ".out.training").is_dir() and not Path("out").exists()
    ended = tune_judge(model, data, settings, target=Path("out"), on_step=at_step(3, signal.SIGTERM))
    assert ended == {"finished": False, "step": 3, "of": 4, "state": ".out.training"}
    taken: list[int] = []
    tune_judge(model, data, SETTINGS, target=Path("out"), on_step=lambda point: taken.append(point["step"]))
    assert taken == [1, 2, 3, 4]
    assert same(weights("out"), weights(alone[0]))
    assert not (here / ".out.training").exists()


def test_two_processes_train_as_one(
    models: Path, data: JudgeData, alone: tuple[Path, Any], here: Path
) -> None:
    """The batch is no multiple of the processes: the gradient is the whole batch's mean."""
    from accelerate.state import AcceleratorState, PartialState

    model = str(models / "smolvlm")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(2):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.environ |= {
                    "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
                    "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true",
                }  # fmt: skip
                AcceleratorState._reset_state()
                PartialState._reset_state()
                done = tune_judge(model, data, SETTINGS, target=Path("out"))
                Path(f"scores-{rank}.json").write_text(json.dumps(done["scores"]))
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    one, two = weights(alone[0]), weights("out")
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-3, atol=2e-5)
    first, second = (json.loads(Path(f"scores-{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    assert [r["value"] for r in first] == [r["value"] for r in alone[1]]


def test_adapters_are_merged_or_a_folder_of_their_own(models: Path, data: JudgeData, here: Path) -> None:
    model = str(models / "smolvlm")
    settings = replace(SETTINGS, lora=4, steps=2, optimizer="came8bit", gradient_checkpointing=True)
    merged = tune_judge(model, data, settings, target=Path("merged"))
    apart = tune_judge(model, data, replace(settings, merge=False), target=Path("apart"))
    assert sorted(p.name for p in Path("apart").glob("*.safetensors")) == ["adapter_model.safetensors"]
    assert [r["value"] for r in merged["scores"]] == [r["value"] for r in apart["scores"]]
    before, after = weights(model), weights("merged")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all("text_model" in name and ".layers." in name for name in changed)
    judges = [open_judge(name, device="cpu") for name in ("merged", "apart")]
    from sanactl.files.images import read_image

    image, prompt = read_image(Path(data.train[0]["path"])), data.train[0]
    one, other = (judge.judge([image], [prompt])[0].yes_logprob for judge in judges)
    assert one == pytest.approx(other, abs=1e-5)
    assert {judge.identity["labels"] for judge in judges} == {"shapes-9"}
    from transformers import AutoModelForImageTextToText

    with_adapter = AutoModelForImageTextToText.from_pretrained("apart")
    assert any("lora_" in name for name, _ in with_adapter.named_parameters())
    with pytest.raises(InputError, match="is an adapter"):
        tune_judge("apart", data, settings, target=Path("x"))
    config = json.loads(Path("apart/adapter_config.json").read_text())
    for change, said in (
        ({"base_model_name_or_path": "/no/such/base"}, "adapter of /no/such/base"),
        ({"peft_type": "IA3"}, "LoRA"),
        ({"base_model_name_or_path": str(models / "qwen3_vl")}, "apart cannot be used"),
        ({"base_model_name_or_path": None}, "names no base"),
    ):
        Path("apart/adapter_config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(InputError, match=said):
            open_judge("apart", device="cpu")


def test_adapters_over_four_bits(models: Path, data: JudgeData, here: Path) -> None:
    """What is merged is the base's own weights, and not those of 4 bits."""
    settings = replace(SETTINGS, lora=4, quantize="4bit", steps=2)
    losses: list[float] = []
    done = tune_judge(
        str(models / "qwen3_vl"),
        data,
        settings,
        target=Path("out"),
        on_step=lambda p: losses.append(p["loss"]),
    )
    assert done["loss"] == losses[-1] < losses[0]
    before, after = weights(models / "qwen3_vl"), weights("out")
    assert max(float((before[n] - after[n]).abs().max()) for n in before) < 0.02
    assert not any("quant" in name for name in after)
    assert "quantization_config" not in json.loads(Path("out/config.json").read_text())


@pytest.mark.parametrize("train", ["projector+llm", "llm"])
def test_parts_that_are_trained(models: Path, train: str) -> None:
    for family, projector in (("smolvlm", "connector"), ("qwen3_vl", "merger")):
        _, trained = opened(models / family, replace(SETTINGS, train=train))
        names = {name for name, _ in trained.named}
        assert any("lm_head" in name for name in names)
        assert any(projector in name for name in names) == (train == "projector+llm")
        tower = {n for n in names if ("vision" in n or "visual" in n) and projector not in n}
        assert not tower


def test_what_goes_wrong_in_training(
    models: Path, data: JudgeData, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = str(models / "smolvlm")
    measure = _Run.measure
    monkeypatch.setattr(_Run, "measure", lambda *given: [])
    with pytest.raises(TrainingError, match="loss is nan"):
        tune_judge(model, data, replace(SETTINGS, learning_rate=1e30, clip=0.0), target=Path("x"))
    assert not Path("x").exists()
    real = AnswerGradient.errors

    def full(self: Any, *given: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 7 GiB.")

    monkeypatch.setattr(AnswerGradient, "errors", full)
    with pytest.raises(
        TrainingError, match=r"not enough memory to train: CUDA out of memory.*--gradient-check"
    ):
        tune_judge(model, data, SETTINGS, target=Path("y"))
    monkeypatch.setattr(AnswerGradient, "errors", real)
    # A damaged image: the run stops, and goes on from where it was with --max-bad.
    broken = Path(here / "broken.png")
    whole = Path(data.train[0]["path"]).read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    spoiled = replace(data, train=[{**data.train[0], "path": str(broken)}, *data.train[1:]])
    steps = replace(SETTINGS, steps=5)
    with pytest.raises(InputError, match=r"broken.png.*--max-bad"):
        tune_judge(model, spoiled, steps, target=Path("z"))
    monkeypatch.setattr(_Run, "measure", measure)
    done = tune_judge(model, spoiled, replace(steps, max_bad=1), target=Path("z"))
    assert done["skipped"] == 1
    with pytest.raises(UsageError, match="no model of transformers"):
        tune_judge("nvila:x", data, SETTINGS, target=Path("x"))
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    LlamaForCausalLM(LlamaConfig(vocab_size=8, **sizes)).save_pretrained("text")
    with pytest.raises(InputError, match="text as a judge cannot be used"):
        tune_judge("text", data, SETTINGS, target=Path("x"))


def test_images_read_ahead_are_those_of_the_steps(models: Path, data: JudgeData) -> None:
    """As on a GPU; also where a step is looked at again, or the first is not 0."""
    from accelerate import Accelerator

    judge, trained = opened(models / "smolvlm", SETTINGS)
    order = Order([data.truth(r) for r in data.train], 0, balance=False)
    settings = replace(SETTINGS, accumulate=2)
    totals = []
    for ahead in (False, True):
        gradient = AnswerGradient(judge, data, order, settings, Accelerator(cpu=True), trained, None)
        gradient.reads_ahead = ahead
        gradient.begin(1)
        with torch.no_grad():
            for step in (1, 2, 2, 3):
                drawn = gradient.draw(step)
                assert len(drawn.parts) == 2
                asked = [gradient.read(drawn, part)() for part in drawn.parts]
                totals.append([a.inputs["pixel_values"].sum().item() for a in asked])
        gradient.end()
    assert totals[:4] == totals[4:] and totals[0] != totals[3]


def test_adapters_are_trained_in_fp32_over_weights_in_bf16(models: Path) -> None:
    model, _ = load_vlm(str(models / "smolvlm"), device=torch.device("cpu"), dtype=torch.bfloat16)
    trained = TrainedModel(model, replace(SETTINGS, lora=2, precision="bf16"), "it")
    assert {p.dtype for p in trained.parameters()} == {torch.float32}
    assert {p.dtype for n, p in model.named_parameters() if "lora_" not in n} == {torch.bfloat16}
