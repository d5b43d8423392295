"""Prompts to embeddings: `SanaPipeline`'s own, with and without the instruction."""

from __future__ import annotations

import pytest
import torch
from diffusers import SanaPipeline
from transformers import AutoModel, AutoTokenizer

from sanactl.diffusion.text import encode_prompts, human_instruction
from sanactl.io.builtin import asset

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
