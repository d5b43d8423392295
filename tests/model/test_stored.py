"""Weights that stay in their file's dtype give the results of weights that are cast once."""

from __future__ import annotations

import gc
import json
import shutil
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sanactl.checkpoint.builtin import asset
from sanactl.checkpoint.open import Checkpoint, open_checkpoint
from sanactl.model import conditions, cpu, loading, stored
from sanactl.model.components import load_text_encoder, load_tokenizer
from sanactl.model.conditioning import Sana, sampling_settings

PROMPTS = [f"a photo of {n} red stars" for n in ("one", "two", "three")]


@pytest.fixture
def small() -> Checkpoint:
    """Its files are in bf16 and fp16, as published ones."""
    return open_checkpoint(asset("base.st"))


def drawn(checkpoint: Checkpoint) -> np.ndarray:
    settings = sampling_settings(checkpoint, steps=1)
    sana = Sana(checkpoint, settings, device=torch.device("cpu"), dtype=torch.float32)
    found = [
        (p, i)
        for places, pixels in sana.draw(PROMPTS, list(range(len(PROMPTS))))
        for p, i in zip(places, pixels, strict=True)
    ]
    return np.stack([image for _, image in sorted(found, key=lambda one: one[0])])


def test_images_are_byte_for_byte_the_same(small: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = drawn(small)
    monkeypatch.setattr(stored, "LARGE", 0)
    monkeypatch.setattr(cpu, "ONE_THREAD_PARAMETERS", 0)
    sana = Sana(small, sampling_settings(small), device=torch.device("cpu"), dtype=torch.float32)
    kinds = [{p.dtype for p in model.parameters()} for model in (sana.transformer, sana._load_encoder())]
    sana = Sana(small, sampling_settings(small), device=torch.device("cpu"), dtype=torch.float32)
    assert all(torch.bfloat16 in k or torch.float16 in k for k in kinds)
    assert (drawn(small) == plain).all()
    before = sum(p.nbytes for p in loading.load_transformer(small).parameters())
    assert sum(p.nbytes for p in sana.transformer.parameters()) < 0.6 * before


def test_text_encoder_is_gone_when_the_transformer_is_loaded(
    small: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In portions of one and of two prompts: each is loaded three times and twice, never both at once."""
    monkeypatch.setattr(stored, "LARGE", 0)
    monkeypatch.setattr(conditions, "PORTION_PROMPTS", 2)
    monkeypatch.setattr(conditions, "PORTION_BYTES", 1)
    monkeypatch.setattr("sanactl.model.conditioning.fixed_batch_size", lambda *_: 1)
    alone = drawn(small)
    alive: list[tuple[str, weakref.ref[Any]]] = []
    seen: list[tuple[str, set[str]]] = []

    def watched(kind: str, load: Any) -> Any:
        def loaded(*args: Any, **options: Any) -> Any:
            seen.append((kind, {name for name, model in alive if model() is not None}))
            model = load(*args, **options)
            alive.append((kind, weakref.ref(model)))
            return model

        return loaded

    monkeypatch.setattr(loading, "load_transformer", watched("transformer", loading.load_transformer))
    monkeypatch.setattr(loading, "load_text_encoder", watched("encoder", load_text_encoder))
    assert (drawn(small) == alone).all()
    assert seen == [("encoder", set()), ("transformer", set())] * 3
    seen.clear()
    gc.collect()
    monkeypatch.setattr(conditions, "PORTION_BYTES", 1 << 20)
    assert (drawn(small) == alone).all()
    assert seen == [("encoder", set()), ("transformer", set())] * 2


def test_layers_are_as_they_were_after_an_error() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(50, 4, padding_idx=3), nn.Linear(4, 2), nn.LayerNorm(2)).bfloat16()
    reference = [p.clone() for p in model.parameters()]
    tokens = torch.tensor([[3, 49, 3], [7, 0, 1]])
    stored.cast_in_use(model, torch.float32)
    assert [p.dtype for p in model.parameters()] == [torch.bfloat16] * 2 + [torch.float32] * 3
    with torch.no_grad():
        found = model(tokens)
        with pytest.raises(RuntimeError):
            model[1](torch.zeros(2, 3))
        assert all(p.equal(r.to(p.dtype)) for p, r in zip(model.parameters(), reference, strict=True))
        assert found.equal(model(tokens))
        plain = nn.Sequential(nn.Embedding(50, 4), nn.Linear(4, 2), nn.LayerNorm(2))
        for parameter, value in zip(plain.parameters(), reference, strict=True):
            parameter.copy_(value)
        assert found.equal(plain(tokens))


def test_a_tokenizer_may_have_no_limit(tmp_path: Path) -> None:
    """transformers writes 10^30, as in Gemma's tokenizer_config.json."""
    folder = shutil.copytree(asset("tokenizer"), tmp_path / "tokenizer")
    config = folder / "tokenizer_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "model_max_length": int(1e30)}))
    assert load_tokenizer(str(folder), {}) is not None
