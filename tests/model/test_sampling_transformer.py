"""The forward pass of sampling against diffusers' own, and kept keys and values against none."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import SanaTransformer2DModel

from sanactl.model.sampler import Guidance, denoise
from sanactl.model.sampling_transformer import SamplingTransformer, Text

SMALL = {
    "in_channels": 4, "out_channels": 4, "num_attention_heads": 3, "attention_head_dim": 8, "num_layers": 3,
    "num_cross_attention_heads": 2, "cross_attention_head_dim": 12, "cross_attention_dim": 24, "caption_channels": 10,
    "sample_size": 4,
}  # fmt: skip
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "qk-norm": {"qk_norm": "rms_norm_across_heads"},
    "sprint": {"qk_norm": "rms_norm_across_heads", "guidance_embeds": True},
    "patches": {"patch_size": 2, "attention_bias": True, "norm_elementwise_affine": True},
}


def model_of(variant: str, dtype: torch.dtype = torch.float32) -> Any:
    torch.manual_seed(0)
    model = SanaTransformer2DModel(**{**SMALL, **VARIANTS[variant]}).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter += 0.3 * torch.randn_like(parameter)  # norms of ones and biases of zeros would show little
    return model.to(dtype)


def inputs_of(model: Any, batch: int = 4, tokens: int = 7) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    dtype = model.dtype
    mask = torch.ones(batch, tokens, dtype=torch.int64)
    mask[0, 2:] = mask[1, 5:] = 0
    found = {
        "hidden_states": torch.randn(batch, 4, 4, 6, generator=generator).to(dtype),
        "encoder_hidden_states": torch.randn(batch, tokens, 10, generator=generator).to(dtype),
        "encoder_attention_mask": mask,
        "timestep": torch.full([batch], 500.0),
    }
    return {**found, "guidance": torch.full([batch], 0.45)} if model.config.guidance_embeds else found


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_predicts_what_diffusers_class_predicts(variant: str) -> None:
    model = model_of(variant)
    inputs = inputs_of(model)
    wanted = model(**inputs, return_dict=False)[0]
    found = SamplingTransformer(model)(**inputs)[0]
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() < 1e-5 * wanted.abs().max()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_rounds_no_worse_than_diffusers_class(dtype: torch.dtype) -> None:
    exact = model_of("qk-norm")
    model = model_of("qk-norm", dtype)
    exact.load_state_dict(model.state_dict())
    inputs = inputs_of(model)
    wanted = exact(**{k: v.float() if v.is_floating_point() else v for k, v in inputs.items()})[0]
    theirs, ours = model(**inputs)[0].float(), SamplingTransformer(model)(**inputs)[0].float()
    assert (ours - wanted).norm() < 1.2 * (theirs - wanted).norm()


@pytest.mark.parametrize("variant", VARIANTS)
def test_kept_keys_and_values_change_no_bit(variant: str) -> None:
    """Three steps with what the first one kept, and each by itself."""
    model = SamplingTransformer(model_of(variant))
    inputs = inputs_of(model)
    text = Text(inputs.pop("encoder_hidden_states"), inputs.pop("encoder_attention_mask"))
    for step in range(3):
        inputs["timestep"] = inputs["timestep"] - 100 * step
        kept = model(**inputs, encoder_hidden_states=text)[0]
        alone = model(**inputs, encoder_hidden_states=Text(text.embeddings, text.mask))[0]
        assert torch.equal(kept, alone)
    keys = [block.key for block in text.blocks]
    model(**inputs, encoder_hidden_states=text)
    assert all(block.key is key for block, key in zip(text.blocks, keys, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_padding_has_no_weight_at_all(dtype: torch.dtype) -> None:
    """Other embeddings at masked places do not change one bit, so trimming them changes rounding alone."""
    model = SamplingTransformer(model_of("qk-norm", dtype))
    inputs = inputs_of(model)
    before = model(**inputs)[0]
    padding = inputs["encoder_attention_mask"] == 0
    inputs["encoder_hidden_states"] = inputs["encoder_hidden_states"].masked_fill(padding[..., None], 3.0)
    assert padding.any() and torch.equal(model(**inputs)[0], before)


def test_a_sampling_run_keeps_the_text_for_all_its_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    published = model_of("qk-norm")
    model, calls = SamplingTransformer(published), []
    model.caption_projection.register_forward_hook(lambda *_: calls.append(1))
    text = torch.randn(2, 7, 10)
    mask = torch.ones(2, 7, dtype=torch.int64)
    guidance = Guidance(text, mask, torch.zeros(1, 7, 10), mask[:1], 3.0)
    noise = torch.randn(2, 4, 4, 4)

    def run(transformer: Any) -> torch.Tensor:
        return denoise(transformer, FlowMatchEulerDiscreteScheduler(), noise, guidance, steps=4)

    ours = run(model)
    assert len(calls) == 1
    theirs = run(published)
    assert len(calls) == 1 + 4
    assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()


@pytest.mark.parametrize("variant", ["qk-norm", "sprint"])
def test_one_timestep_is_that_of_all_images(variant: str) -> None:
    model = SamplingTransformer(model_of(variant))
    inputs = inputs_of(model)
    each = model(**inputs)[0]
    one = {name: inputs[name][:1] for name in ("timestep", "guidance") if name in inputs}
    assert (model(**(inputs | one))[0] - each).abs().max() < 1e-5 * each.abs().max()
