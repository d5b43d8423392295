"""The vision-language judge, on the built-in judge's own classes with random weights."""

from __future__ import annotations

import json
import math
import os
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sanactl.checkpoint.builtin import asset
from sanactl.errors import InputError, UsageError
from sanactl.judging.backends.answers import answer_tokens
from sanactl.judging.backends.vlm import VlmJudge
from sanactl.judging.registry import open_judge
from sanactl.shapes.dataset import batch

PROMPTS = [
    "a photo of a red square and an orange star",
    "heart",
    "a photo of four crosses",
    "a drawing of a heart",
]


@pytest.fixture(scope="module")
def judge(judge_folder: Path) -> VlmJudge:
    return VlmJudge.load(str(judge_folder), device="cpu")


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    return list(batch(range(len(PROMPTS)))[0])


def test_reloads_through_the_auto_classes(judge_folder: Path) -> None:
    from transformers import (
        AutoModelForImageTextToText,
        AutoProcessor,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    assert isinstance(AutoProcessor.from_pretrained(judge_folder), LlavaProcessor)
    assert isinstance(
        AutoModelForImageTextToText.from_pretrained(judge_folder), LlavaForConditionalGeneration
    )


def test_a_verdict_is_the_next_word_of_the_dialogue(judge: VlmJudge, images: list[np.ndarray]) -> None:
    from PIL import Image

    (verdict,) = judge.score(images[:1], PROMPTS[:1])
    text = (
        "<bos>user: You are an AI assistant specializing in image analysis and ranking. Your task is to analyze and "
        f"compare image based on how well they match the given prompt. <image> The given prompt is: {PROMPTS[0]}. Please "
        "consider the prompt and the image to make a decision and response directly with 'yes' or 'no' assistant:"
    )
    inputs = judge.processor(
        text=[text], images=[Image.fromarray(images[0])], add_special_tokens=False, return_tensors="pt"
    )
    with torch.no_grad():
        logprobs = judge.model(**inputs).logits[0, -1].double().log_softmax(-1)
    ids = judge.processor.tokenizer.convert_tokens_to_ids(["yes", "no"])
    assert [verdict.yes_logprob, verdict.no_logprob] == pytest.approx(logprobs[ids].tolist(), abs=1e-5)


def test_no_word_of_the_world_is_unknown(judge: VlmJudge) -> None:
    from sanactl.shapes.prompts import words

    tokenizer = judge.processor.tokenizer
    assert tokenizer.unk_token_id not in tokenizer(" ".join(words()))["input_ids"]


def test_neighbours_in_the_batch_do_not_matter(judge: VlmJudge, images: list[np.ndarray]) -> None:
    together = judge.score(images, PROMPTS)
    backwards = judge.score(images[::-1], PROMPTS[::-1])[::-1]
    alone = [judge.score([i], [p])[0] for i, p in zip(images, PROMPTS, strict=True)]
    assert len({len(p.split()) for p in PROMPTS}) > 1
    for a, b, c in zip(together, backwards, alone, strict=True):
        assert a.yes_logprob == pytest.approx(c.yes_logprob, abs=1e-5)
        assert a.no_logprob == pytest.approx(c.no_logprob, abs=1e-5)
        assert b.yes_logprob == pytest.approx(c.yes_logprob, abs=1e-5)
    # And the images and the prompts do matter: random weights, but no two answers alike.
    assert len({round(v.yes_logprob, 4) for v in together}) == len(PROMPTS)


def test_a_small_judge_says_the_same_on_any_number_of_threads(judge: VlmJudge) -> None:
    """Twenty pairs are two parts and a half."""
    pictures, records = batch(range(20))
    prompts, before = [record["prompt"] for record in records], torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(judge.score(list(pictures), prompts))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1] == found[2]
    alone = [judge.score(list(pictures[n : n + 1]), prompts[n : n + 1])[0] for n in (0, 9, 19)]
    for verdict, n in zip(alone, (0, 9, 19), strict=True):
        assert found[0][n].yes_logprob == pytest.approx(verdict.yes_logprob, rel=1e-4)


def test_other_sizes_are_resized(judge: VlmJudge, images: list[np.ndarray]) -> None:
    large = np.repeat(np.repeat(images[0], 2, axis=0), 2, axis=1)
    a, b = judge.score([images[0], large], [PROMPTS[0]] * 2)
    assert a.yes_logprob == pytest.approx(b.yes_logprob, abs=0.05)


def test_a_prompt_cannot_claim_an_image(judge: VlmJudge, images: list[np.ndarray]) -> None:
    (verdict,) = judge.score(images[:1], ["a heart <image> <image>"])
    assert math.isfinite(verdict.score)


def test_nothing_in_nothing_out(judge: VlmJudge) -> None:
    assert judge.score([], []) == []


def test_nan_is_one_clear_line(judge_folder: Path, images: list[np.ndarray]) -> None:
    broken = VlmJudge.load(str(judge_folder), device="cpu")
    broken.model.lm_head.weight.data.fill_(float("nan"))
    with pytest.raises(InputError, match="gives NaN"):
        broken.score(images[:1], PROMPTS[:1])


@pytest.mark.parametrize("source", ["./nowhere", "/no/such/judge", "nowhere", "a/b/c", "~/no-such-judge"])
def test_a_folder_that_is_not_there_fails_at_once(source: str) -> None:
    start = time.monotonic()
    with pytest.raises(InputError, match="no such folder"):
        open_judge(source)
    assert time.monotonic() - start < 1


def test_what_is_no_judge_is_refused(tmp_path: Path, judge_folder: Path) -> None:
    with pytest.raises(InputError, match=r"no config\.json"):
        open_judge(str(tmp_path))
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="a file; a judge is a folder"):
        open_judge(str(tmp_path / "file"))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match=r"holds no model\.safetensors"):
        open_judge(str(tmp_path))
    with pytest.raises(UsageError, match="unknown dtype 'float12'; choose one of fp32"):
        open_judge(str(judge_folder), dtype="float12")


def cut_short(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", 50_000)


def without_a_tensor(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    del state[next(name for name in sorted(state) if name.endswith("layers.0.mlp.up_proj.weight"))]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def edit(folder: Path, **values: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **values}))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (cut_short, "model.safetensors is truncated"),
        (without_a_tensor, "lacks the tensor"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "as a judge cannot be used"),
        (lambda folder: (folder / "chat_template.jinja").unlink(), "no chat template"),
        (lambda folder: (folder / "chat_template.jinja").write_text("{{"), "as a judge cannot be used"),
        (lambda folder: edit(folder, text_config={"model_type": "qwen2"}), "describes a model of"),
        (lambda folder: edit(folder, image_seq_length=10**30), "image_seq_length is"),
        (lambda folder: edit(folder, model_type="moon"), "moon"),
    ],
)
def test_damaged_judges_give_one_line(
    tmp_path: Path, judge_folder: Path, damage: Callable[[Path], Any], said: str
) -> None:
    folder = tmp_path / "judge"
    shutil.copytree(judge_folder, folder)
    damage(folder)
    with pytest.raises(InputError, match=said) as caught:
        open_judge(str(folder), device="cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("part", ["text_encoder", "vae", "tokenizer"])
def test_models_that_are_no_judge_are_refused(tmp_path: Path, part: str) -> None:
    """A language model, an autoencoder, a folder without a model."""
    shutil.copytree(asset(part), tmp_path / part)
    with pytest.raises(InputError) as caught:
        open_judge(str(tmp_path / part), device="cpu")
    assert str(tmp_path / part) in str(caught.value) and "\n" not in str(caught.value)


def test_a_judges_config_cannot_have_anything_fetched_or_run(
    tmp_path: Path, judge_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    def refuse(*arguments: Any, **options: Any) -> None:
        raise AssertionError("something was asked of the network")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    folder = tmp_path / "judge"
    shutil.copytree(judge_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    for part in (config, config["vision_config"], config["text_config"]):
        part["_attn_implementation"] = "kernels-community/flash-attn"
    config["auto_map"] = {"AutoModelForImageTextToText": "evil.Evil", "AutoConfig": "evil.Evil"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    judge = open_judge(str(folder), device="cpu")
    assert isinstance(judge, VlmJudge)
    assert judge.model.config._attn_implementation in ("sdpa", "eager")
    assert not (tmp_path / "ran").exists()


def test_spellings_of_an_answer() -> None:
    class Tokenizer:
        unk_token_id = 0

        def encode(self, text: str, add_special_tokens: bool) -> list[int]:
            assert not add_special_tokens
            known = {"yes": [5], " yes": [6], "Yes": [7], " Yes": [8, 9], "YES": [0], " YES": [0]}
            return known.get(text, [0])

    assert answer_tokens(Tokenizer(), "yes", "it") == [5, 6, 7]
    with pytest.raises(InputError, match="no token for 'no'"):
        answer_tokens(Tokenizer(), "no", "it")
