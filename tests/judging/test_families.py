"""The vision-language judge on the real classes of several families, tiny and with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sanactl.errors import InputError, UsageError
from sanactl.judging.backends.processors import _without_packages_for_videos, thinking_off
from sanactl.judging.backends.vlm import VlmJudge
from sanactl.judging.registry import open_judge
from tests.judging.tiny_models import FAMILIES, PROMPTS, make

SIZES = ((64, 64), (48, 96), (96, 40), (33, 57))  # height, width


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("families")
    return {family: make(family, root / family) for family in FAMILIES}


def pairs(count: int) -> tuple[list[np.ndarray], list[str]]:
    """Images of mixed sizes with prompts of mixed lengths."""
    rng = np.random.default_rng(7)
    images = [rng.integers(0, 256, (*SIZES[i % 4], 3), dtype=np.uint8) for i in range(count)]
    return images, [PROMPTS[i * 7 // 3 % len(PROMPTS)] for i in range(count)]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_says_what_each_pair_says_alone(folders: dict[str, Path], family: str) -> None:
    judge = open_judge(str(folders[family]), device="cpu", dtype="fp32")
    assert isinstance(judge, VlmJudge)
    judge._one_thread_each = False  # all pairs in one batch, as a large model has them
    images, prompts = pairs(32)
    alone = np.array(
        [(v.yes_logprob, v.no_logprob) for v in (judge.score([i], [p])[0] for i, p in zip(images, prompts, strict=True))]
    )  # fmt: skip
    assert len(np.unique(alone[:, 0].round(6))) > 8, "the image or the prompt does not matter"
    for size in (7, 32):
        found = judge.score(images[:size], prompts[:size])
        together = np.array([(v.yes_logprob, v.no_logprob) for v in found])
        assert np.abs(together - alone[:size]).max() < 1e-4
        assert all(0 < v.answer_mass < 1 for v in found)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_text_before_the_image_is_computed_once(folders: dict[str, Path], family: str) -> None:
    """Where a model's positions and attention allow it; its logits are those of the plain way."""
    judge: Any = open_judge(str(folders[family]), device="cpu", dtype="fp32")
    assert (judge._prefix is not None) == (family in ("idefics3", "smolvlm", "internvl"))
    inputs = judge.inputs(*pairs(7))
    with torch.inference_mode():
        plain = judge._plain_logits(inputs)
        assert float((judge._next_logits(inputs) - plain).abs().max()) < 1e-4
        if judge._prefix is None:
            return
        judge._plain_logits = None  # not asked
        judge._next_logits(inputs)
        # What does not begin with the prefix, and keys that are not the prefix's.
        other = {**inputs, "input_ids": inputs["input_ids"].flip(0).roll(1, dims=1)}
        assert judge._prefix.next_logits(other) is None
        judge._prefix.layers = [(k.flip(2), v) for k, v in judge._prefix.layers]
        assert float((judge._next_logits(inputs) - plain).abs().max()) > 1e-6
    of_image_first: Any = open_judge(str(folders[family]), device="cpu", dialogue="vqascore")
    assert of_image_first._prefix is None


@pytest.mark.parametrize("family", FAMILIES)
def test_training_asks_what_the_judge_is_asked(folders: dict[str, Path], family: str) -> None:
    """`train-judge` pads on the right and does without `generate`; the logits are those of the judge."""
    from sanactl.training.judge.gradient import answer_logits, answer_token, padded_right

    judge: Any = open_judge(str(folders[family]), device="cpu", dtype="fp32")
    images, prompts = pairs(5)
    with torch.inference_mode():
        wanted = judge._plain_logits(judge.inputs(images, prompts))
        inputs = padded_right(judge.inputs(images, prompts))
        assert (inputs["attention_mask"][:, -1] == 0).any(), "no row is padded"
        found = answer_logits(judge.model, inputs)
    assert float((found - wanted).abs().max()) < 1e-4
    encode = judge.processor.tokenizer.encode
    assert [answer_token(judge, truth) for truth in (True, False)] == [*encode("yes"), *encode("no")]


def test_thinking_is_off(folders: dict[str, Path]) -> None:
    judge: Any = open_judge(str(folders["qwen25_vl"]), device="cpu")
    images, prompts = pairs(1)
    text = judge.processor.tokenizer.decode(judge.inputs(images, prompts)["input_ids"][0])
    assert text.endswith("assistant :")
    judge._chat.pop("enable_thinking")
    text = judge.processor.tokenizer.decode(judge.inputs(images, prompts)["input_ids"][0])
    assert "think" in text[-10:]


def test_switches_of_thinking() -> None:
    assert thinking_off("{% if enable_thinking %}x{% endif %}")["enable_thinking"] is False
    assert thinking_off({"default": "{% if thinking %}x{% endif %}"}) == {"thinking": False}
    assert thinking_off("{{ messages }}") == {}
    assert thinking_off(None) == {}


@pytest.mark.parametrize("dialogue", ["reference", "vqascore", "file"])
def test_dialogues(folders: dict[str, Path], dialogue: str, tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("<image> Does this figure show a <prompt>? Yes or no.\n")
    name = str(mine) if dialogue == "file" else dialogue
    paper: Any = open_judge(str(folders["gemma3"]), device="cpu")
    judge: Any = open_judge(str(folders["gemma3"]), device="cpu", dialogue=name)
    images, prompts = pairs(2)
    text = judge.text(judge.dialogue.conversation("heart"))
    wanted = {
        "reference": "user : <start_of_image> You are an AI assistant specializing in image analysis and ranking. Your task is "
        "to analyze and compare image based on how well they match the given prompt.\nThe given prompt is:heart. Please "
        "consider the prompt and the image to make a decision and response directly with 'yes' or 'no'. <eos>assistant : ",
        "vqascore": 'user : <start_of_image> Does this figure show "heart"? Please answer Yes or No. <eos>assistant : ',
        "file": "user : <start_of_image> Does this figure show a heart? Yes or no. <eos>assistant : ",
    }[dialogue]  # fmt: skip
    assert text == "<bos>" + wanted
    assert judge.score(images, prompts) != paper.score(images, prompts)
    assert judge.identity != paper.identity


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Does it show <prompt>?", "has <image> once, and this one 0 times"),
        ("<image> <prompt> <prompt>", "has <prompt> once, and this one 2 times"),
        ("<image> \udcff <prompt>", "not UTF-8 text"),
    ],
)
def test_dialogues_that_are_none(judge_folder: Path, tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "d.txt").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=said):
        open_judge(str(judge_folder), dialogue=str(tmp_path / "d.txt"))


def test_large_images_are_made_smaller(folders: dict[str, Path]) -> None:
    judge: Any = open_judge(str(folders["qwen25_vl"]), device="cpu", max_pixels="1024")
    whole: Any = open_judge(str(folders["qwen25_vl"]), device="cpu")
    image = np.random.default_rng(0).integers(0, 256, (96, 48, 3), dtype=np.uint8)
    small, large = (j.inputs([image], ["heart"])["pixel_values"] for j in (judge, whole))
    assert len(small) < len(large)
    tiny = np.full((16, 16, 3), 9, np.uint8)
    assert judge.score([tiny], ["heart"]) == whole.score([tiny], ["heart"])
    with pytest.raises(UsageError, match="max_pixels is -5"):
        open_judge(str(folders["qwen25_vl"]), device="cpu", max_pixels=-5)


@pytest.mark.parametrize("fits", [5, 1])
def test_out_of_memory_halves_the_batch(
    folders: dict[str, Path], fits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge: Any = open_judge(str(folders["gemma3"]), device="cpu")
    judge._one_thread_each = False
    images, prompts = pairs(13)
    whole = judge.score(images, prompts)
    tried: list[int] = []
    compute = judge._verdicts

    def little(inputs: dict[str, Any]) -> Any:
        tried.append(len(inputs["input_ids"]))
        if tried[-1] > fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return compute(inputs)

    monkeypatch.setattr(judge, "_verdicts", little)
    found = judge.score(images, prompts)
    assert tried == {5: [13, 7, 4, 4, 4, 1], 1: [13, 7, 4, 2] + [1] * 13}[fits]
    assert [v.yes_logprob for v in found] == pytest.approx([v.yes_logprob for v in whole], abs=1e-4)
    tried.clear()
    judge.score(images, prompts)
    assert max(tried) == {5: 4, 1: 1}[fits]


def test_no_memory_for_one_image_is_one_line(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    judge: Any = open_judge(str(folders["gemma3"]), device="cpu")
    judge._one_thread_each = False

    def none(inputs: Any) -> Any:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 7 bytes.")

    monkeypatch.setattr(judge, "_verdicts", none)
    with pytest.raises(InputError, match=r"not enough memory for one image: DefaultCPUAllocator.*max_pixels"):
        judge.score(*pairs(3))


@pytest.mark.parametrize("family", ["qwen25_vl", "gemma3", "smolvlm"])
@pytest.mark.parametrize("kind", ["8bit", "4bit"])
def test_only_the_language_model_is_quantized(folders: dict[str, Path], family: str, kind: str) -> None:
    import bitsandbytes

    judge: Any = open_judge(str(folders[family]), device="cpu", quantize=kind)
    wanted = {"8bit": bitsandbytes.nn.Linear8bitLt, "4bit": bitsandbytes.nn.Linear4bit}[kind]
    language = {id(m) for m in judge.model.get_decoder().modules()}
    linear = [(n, m) for n, m in judge.model.named_modules() if isinstance(m, torch.nn.Linear)]
    assert {n for n, m in linear if isinstance(m, wanted)} == {n for n, m in linear if id(m) in language}
    assert any(n.endswith("lm_head") and type(m) is torch.nn.Linear for n, m in linear)
    assert judge.identity["quantize"] == kind
    images, prompts = pairs(4)
    plain = open_judge(str(folders[family]), device="cpu")
    assert isinstance(plain, VlmJudge)
    for a, b in zip(judge.score(images, prompts), plain.score(images, prompts), strict=True):
        assert a.yes_logprob == pytest.approx(b.yes_logprob, abs=0.5)


def test_quantization_that_there_is_not(folders: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match="quantize is '3bit'; it takes 8bit or 4bit"):
        open_judge(str(folders["gemma3"]), device="cpu", quantize="3bit")


@pytest.mark.parametrize("torchvision", [True, False])
def test_smolvlm_needs_no_package_for_numbers_of_frames(
    monkeypatch: pytest.MonkeyPatch, torchvision: bool
) -> None:
    """With torchvision, too: num2words is often missing where torchvision is there."""
    from transformers.models.smolvlm import processing_smolvlm

    monkeypatch.setattr(processing_smolvlm, "num2words", None)
    with _without_packages_for_videos(torchvision=torchvision):
        assert processing_smolvlm.num2words is not None
    assert processing_smolvlm.num2words is None
