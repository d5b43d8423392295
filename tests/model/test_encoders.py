"""Embeddings for training: what the model sees in training is what it sees in sampling, also of a caption of no tokens."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sanactl.checkpoint.open import open_checkpoint
from tests.pictures import write_folder
from tests.program import Program


@pytest.fixture
def without_start(place: Path, sanactl: Program) -> Path:
    """A pipeline whose tokenizer adds neither start nor end, and whose padding is a token that has an embedding."""
    sanactl("convert", "tiny.st", "--pipeline", "--copy", "-o", "pipe")
    for name, change in (
        ("tokenizer.json", {"post_processor": None}),
        ("tokenizer_config.json", {"pad_token": "<unk>"}),
    ):
        file = place / "pipe/tokenizer" / name
        file.write_text(json.dumps(json.loads(file.read_text()) | change))
    return place / "pipe"


def test_a_caption_of_no_tokens_is_what_sampling_makes_of_it(without_start: Path) -> None:
    import torch

    from sanactl.data.encoded import padded
    from sanactl.model.encoders import Encoders
    from sanactl.model.loading import load_transformer
    from sanactl.model.text import encode_prompts

    checkpoint = open_checkpoint(str(without_start))
    encoders = Encoders(checkpoint, max_sequence_length=16, complex_human_instruction=False, device="cpu")
    texts = encoders.texts(["", "a red circle"])
    assert [len(text) for text in texts] == [16, 3]
    model = load_transformer(checkpoint)
    noise = torch.randn(1, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    for caption, text in zip(("", "a red circle"), texts, strict=True):
        sampled = encode_prompts(encoders.tokenizer, encoders.text_encoder, [caption], max_sequence_length=16)
        assert int(sampled[1].sum()) == (3 if caption else 0)
        with torch.no_grad():
            velocities = [
                model(
                    noise, encoder_hidden_states=t, encoder_attention_mask=mask, timestep=torch.tensor([500])
                )
                for t, mask in (sampled, padded([text], 16))
            ]
        torch.testing.assert_close(velocities[0].sample, velocities[1].sample, rtol=1e-4, atol=1e-4)


def test_shards_with_an_empty_prompt_of_no_tokens(without_start: Path, sanactl: Program) -> None:
    write_folder(Path("shots"), 4)
    sanactl("encode", "pipe", "--data", "shots", "--dtype", "fp32", "-o", "latents")
    losses = []
    for data in ("shots", "latents"):
        few = ("--steps", "3", "-b", "4", "--text-dropout", "0.5", "-o", f"{data}.st")
        sanactl("finetune", "pipe", "--data", data, *few)
        losses.append(
            [json.loads(line)["loss"] for line in Path(f"{data}.train.jsonl").read_text().splitlines()]
        )
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
