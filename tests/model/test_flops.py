"""FLOPs of an image: against formulas, against real runs in other dtypes, against the paper."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sanactl.bench.synthetic import TINY, synthetic_checkpoint
from sanactl.checkpoint.builtin import asset
from sanactl.checkpoint.config import CONFIG_DEFAULTS, check_config
from sanactl.checkpoint.open import open_checkpoint
from sanactl.checkpoint.sana import forward_flops
from sanactl.errors import InputError
from sanactl.model.flops import count_flops, count_image, image_flops, transformer_flops
from sanactl.model.loading import load_components, load_transformer
from sanactl.model.sampling_settings import sampling_settings


def layers_flops(model: torch.nn.Module, run: Callable[[], Any]) -> int:
    """FLOPs of all linear layers and convolutions, from the sizes that a real run has."""
    found = 0

    def add(layer: torch.nn.Module, _: Any, output: torch.Tensor) -> None:
        nonlocal found
        # Each number of the output is a sum over one row of the weights; a linear layer's row is a whole input.
        weights = layer.weight[0].numel()
        found += 2 * output.numel() * weights

    kinds = (torch.nn.Linear, torch.nn.Conv2d)
    hooks = [layer.register_forward_hook(add) for layer in model.modules() if isinstance(layer, kinds)]
    with torch.no_grad():
        run()
    for hook in hooks:
        hook.remove()
    return found


@pytest.fixture(scope="module")
def base() -> Any:
    return open_checkpoint(str(asset("base.st")))


def test_the_parts_are_those_of_real_runs(base) -> None:
    settings = sampling_settings(base)
    counted = count_image(base, settings)
    parts = load_components(base, parts=("text_encoder", "vae"), dtype=torch.bfloat16)
    transformer = load_transformer(base, dtype=torch.bfloat16)
    ids = torch.zeros(1, settings.max_sequence_length, dtype=torch.int64)
    latent = torch.zeros(1, base.config.in_channels, 8, 8, dtype=torch.bfloat16)
    text = torch.zeros(1, settings.max_sequence_length, base.config.caption_channels, dtype=torch.bfloat16)
    runs = {
        "text": (parts.text_encoder, lambda: parts.text_encoder(ids), 1),
        "decoding": (parts.vae, lambda: parts.vae.decode(latent), 1),
        "sampling": (
            transformer,
            lambda: transformer(latent, encoder_hidden_states=text, timestep=torch.zeros(1)),
            2 * settings.steps,
        ),
    }
    for name, (model, run, times) in runs.items():
        whole, layers = getattr(counted, name), times * layers_flops(model, run)
        # Any dtype gives the same count, and what is no layer is attention.
        assert whole == times * count_flops(run), name
        assert layers <= whole <= 1.1 * layers, name
    assert image_flops(base, settings) == counted.text + counted.sampling + counted.decoding


@pytest.mark.parametrize("config", [TINY, {**CONFIG_DEFAULTS, "qk_norm": "rms_norm_across_heads"}])
@pytest.mark.parametrize("blocks", [3, 60])
def test_dry_runs_say_the_same(config, blocks) -> None:
    """`grow --dry-run` and `inspect` have a formula, because they load no torch."""
    config = {**config, "num_layers": blocks}
    side = config["sample_size"]
    counted = transformer_flops(config, height=side, width=side, text_tokens=300)
    full = check_config({**config, "_class_name": "SanaTransformer2DModel"}, "it")
    assert counted == pytest.approx(forward_flops(full), rel=1e-3)


def test_the_papers_figure() -> None:
    """49,140 GFLOPs an image of the 4.8B: 20 forward passes at 512 pixels."""
    large = {**CONFIG_DEFAULTS, "qk_norm": "rms_norm_across_heads", "num_layers": 60}
    small = transformer_flops(large, height=16, width=16, text_tokens=300)
    assert 20 * small == pytest.approx(49_140e9, rel=0.02)
    large_image = 2 * 20 * transformer_flops(large, height=32, width=32, text_tokens=300)
    assert large_image == pytest.approx(355_500e9, rel=0.001)


def test_guidance_steps_size_and_depth(base, tmp_path: Path) -> None:
    settings = sampling_settings(base)
    once = count_image(base, settings)
    assert count_image(base, replace(settings, steps=40)).sampling == 2 * once.sampling
    assert 2 * count_image(base, replace(settings, guidance_scale=1.0)).sampling == once.sampling
    large = count_image(base, replace(settings, height=128, width=64))
    assert large.decoding == 2 * once.decoding and large.text == once.text
    assert 1.8 * once.sampling < large.sampling < 2 * once.sampling
    with pytest.raises(InputError, match="names no text_encoder"):
        alone = open_checkpoint(str(synthetic_checkpoint(tmp_path / "alone.st")))
        image_flops(alone, sampling_settings(alone))


def test_an_instruction_makes_the_text_longer(base) -> None:
    settings = sampling_settings(
        base, complex_human_instruction=True, instruction="a photo of a red circle " * 3
    )
    assert count_image(base, settings).text > 1.5 * count_image(base, sampling_settings(base)).text


def test_sprint_has_one_forward_pass_a_step() -> None:
    config = {**TINY, "guidance_embeds": True}
    plain = transformer_flops(dict(TINY), height=8, width=8, text_tokens=16)
    # The embedder of the guidance scale is two products more.
    assert plain < transformer_flops(config, height=8, width=8, text_tokens=16) < 1.01 * plain
