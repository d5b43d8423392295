"""Prompts to embeddings: `SanaPipeline`'s own, with and without the instruction."""

from __future__ import annotations

import time

import pytest
import torch
from diffusers import SanaPipeline
from transformers import AutoModel, AutoTokenizer

from sanactl.checkpoint.builtin import asset
from sanactl.model.text import cut_note, cut_prompts, encode_prompts, human_instruction

LENGTH = 16


@pytest.fixture(scope="module")
def tools() -> tuple:
    return AutoTokenizer.from_pretrained(asset("tokenizer")), AutoModel.from_pretrained(
        asset("text_encoder"), dtype=torch.float32
    )


@pytest.mark.parametrize("instructed", [False, True])
def test_embeddings_are_the_pipelines(tools: tuple, instructed: bool) -> None:
    tokenizer, encoder = tools
    # Longer than what the built-in encoder has places for, but the tokens are what matters here.
    instruction = ["Given a prompt, say more.", "Prompt: "] if instructed else None
    pipeline = SanaPipeline(
        tokenizer=tokenizer, text_encoder=encoder, vae=None, transformer=None, scheduler=None
    )
    prompts = ["A photo of a RED circle ", "two stars"]
    theirs, mask, negative, negative_mask = pipeline.encode_prompt(
        prompts, negative_prompt=["", ""], max_sequence_length=LENGTH, complex_human_instruction=instruction
    )
    ours, our_mask = encode_prompts(*tools, prompts, max_sequence_length=LENGTH, instruction=instruction)
    torch.testing.assert_close(ours, theirs)
    assert (our_mask == mask).all()
    empty, empty_mask = encode_prompts(*tools, ["", ""], max_sequence_length=LENGTH)
    torch.testing.assert_close(empty, negative)
    assert (empty_mask == negative_mask).all()
    assert ours.shape == (2, LENGTH, 96)


def test_the_instruction_is_the_pipelines_default() -> None:
    lines = human_instruction()
    assert len(lines) > 5
    assert all(isinstance(line, str) for line in lines)
    assert lines[-1] == "User Prompt: "


@pytest.mark.parametrize("instruction", [None, ["Given a prompt, say more.", "Prompt: "]])
def test_what_is_cut_is_told(tools: tuple, instruction: list[str] | None) -> None:
    """A prompt is cut exactly where a further word changes nothing of its embedding."""
    words = ["red", "circle", "and", "a", "star"] * 6
    prompts = [" ".join(words[:count]) for count in range(1, 30)]
    embedded, _ = encode_prompts(
        *tools, [p + " green" for p in prompts], max_sequence_length=LENGTH, instruction=instruction
    )
    other, _ = encode_prompts(
        *tools, [p + " blue" for p in prompts], max_sequence_length=LENGTH, instruction=instruction
    )
    same = [i for i in range(len(prompts)) if torch.equal(embedded[i], other[i])]
    cut = cut_prompts(
        tools[0],
        [p + " blue" for p in prompts],
        max_sequence_length=LENGTH,
        instruction=instruction,
    )
    assert 0 < len(cut) < len(prompts)
    assert cut == same
    line = cut_note(
        tools[0], [*prompts, "ein \x1b[31mStern"], max_sequence_length=LENGTH, instruction=instruction
    )
    assert line is not None and line.isprintable()
    assert f"of 30 prompts have more than the {LENGTH} tokens" in line
    assert cut_note(tools[0], prompts[:3], max_sequence_length=LENGTH, instruction=instruction) is None


def test_a_long_list_is_looked_through_quickly(tools: tuple) -> None:
    prompts = [f"a photo of {n} stars" for n in range(100_000)]
    start = time.monotonic()
    assert cut_prompts(tools[0], [*prompts, "star " * 400]) == [100_000]
    assert time.monotonic() - start < 5


def test_the_instruction_is_also_a_style_of_rewrite() -> None:
    from sanactl.prompts.templates import CHI

    assert "\n".join(human_instruction()) + "{prompt}" == CHI
