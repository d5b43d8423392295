"""Texts trimmed to a few lengths: another length changes rounding alone, and an image depends on its own prompt alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sanactl.checkpoint.open import open_checkpoint
from sanactl.model.conditioning import Sana
from sanactl.model.conditions import TEXT_LENGTHS, fixed_batches
from sanactl.model.sampling_settings import SamplingSettings, sampling_settings
from sanactl.model.text import encode_prompts, kept_tokens

CPU = {"device": torch.device("cpu"), "dtype": torch.float32}
SHORT = "a photo of two red stars"
LONG = "a photo of a red circle and a blue square left of a green star and of two yellow rings above it"
LENGTH = 80  # tokens; the built-in world's own 16 are never trimmed


def sana_of(checkpoint: Path, **settings: Any) -> Sana:
    found = open_checkpoint(checkpoint)
    chosen = replace(sampling_settings(found, steps=2), max_sequence_length=LENGTH, fixed_batch=4)
    return Sana(found, replace(chosen, **settings), **CPU)


def drawn(sana: Sana, prompts: Sequence[str]) -> list[np.ndarray]:
    """One image of each prompt, whose seed is its length."""
    found: dict[int, np.ndarray] = {}
    for places, pixels in sana.draw(prompts, [len(p) for p in prompts]):
        found.update(zip(places, pixels, strict=True))
    return [found[place] for place in range(len(prompts))]


def test_a_trimmed_text_changes_rounding_alone(tiny_file: Path) -> None:
    trimmed, full = sana_of(tiny_file), sana_of(tiny_file, text_padding="full")
    for prompt in (SHORT, LONG):
        latents = [sana.denoise(sana.texts.guidance([prompt] * 4), range(4)) for sana in (trimmed, full)]
        assert (latents[0] - latents[1]).abs().max() < 2e-5
    assert trimmed.texts.guidance([SHORT]).text.shape[1] == 16
    assert trimmed.texts.guidance([LONG]).text.shape[1] == 32
    assert full.texts.guidance([SHORT]).text.shape[1] == LENGTH


def test_neighbours_with_longer_texts_change_no_bit(tiny_file: Path) -> None:
    sana = sana_of(tiny_file)
    mixed = [SHORT, LONG, "a star", LONG + " and a ring", "two rings", "a red circle", LONG + " and a dot"]
    together = drawn(sana, mixed)
    for place, prompt in enumerate(mixed):
        (alone,) = drawn(sana, [prompt])
        assert (alone == together[place]).all()


def test_the_longer_of_prompt_and_negative_prompt_decides(tiny_file: Path) -> None:
    assert sana_of(tiny_file, negative_prompt=LONG).texts.text_length(SHORT) == 32
    assert sana_of(tiny_file, negative_prompt=LONG, guidance_scale=1.0).texts.text_length(SHORT) == 16
    assert sana_of(tiny_file, negative_prompt=LONG + " " + "red " * 90).texts.text_length(SHORT) == LENGTH
    guidance = sana_of(tiny_file, negative_prompt=LONG).texts.guidance([SHORT])
    assert guidance.negative_text is not None and guidance.negative_text.shape == guidance.text.shape


def test_a_text_without_tokens_keeps_its_padding(tiny_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention is then over all of the padding, so that it cannot be trimmed."""
    monkeypatch.setattr("sanactl.model.text.kept_tokens", lambda *_, **__: [0])
    assert sana_of(tiny_file).texts.text_length("") == LENGTH


@pytest.mark.parametrize("instruction", [None, ["Given a prompt, say more.", "Prompt: "]])
def test_kept_tokens_are_those_of_the_mask(tiny_file: Path, instruction: list[str] | None) -> None:
    sana = sana_of(tiny_file)
    tools = sana.components.tokenizer, sana.texts.encoder()
    prompts = ["", "a star", SHORT, LONG, "red " * 15, "red " * 200]
    for length in (16, 40):
        _, mask = encode_prompts(*tools, prompts, max_sequence_length=length, instruction=instruction)
        kept = kept_tokens(tools[0], prompts, max_sequence_length=length, instruction=instruction)
        assert kept == mask.sum(1).tolist()


@given(st.lists(st.sampled_from((16, 32, 300)), max_size=60), st.integers(1, 8))
def test_batches_are_of_one_length_and_hold_each_image_once(lengths: list[int], size: int) -> None:
    batches = list(fixed_batches(lengths, size))
    assert sorted(place for batch in batches for place in batch) == list(range(len(lengths)))
    assert all(len({lengths[place] for place in batch}) == 1 for batch in batches)
    parts = Counter(lengths[batch[0]] for batch in batches if len(batch) < size)
    assert all(count == 1 for count in parts.values())
    assert all(batch == sorted(batch) for batch in batches)


def test_lengths_are_multiples_that_attention_takes_as_they_are() -> None:
    assert all(length % 16 == 0 for length in TEXT_LENGTHS)
    assert SamplingSettings().text_padding == "trim"
