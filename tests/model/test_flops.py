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
from sanactl.model.conditioning import Sana
from sanactl.model.flops import ImageCosts, ImageFlops, count_flops, sampling_flops
from sanactl.model.loading import load_components
from sanactl.model.sampling_settings import SamplingSettings, sampling_settings


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


def transformer_flops(config: dict[str, Any], *, height: int, width: int, text_tokens: int) -> int:
    """FLOPs of one forward pass of diffusers' class for one latent, which keeps nothing from step to step."""
    from diffusers import SanaTransformer2DModel

    with torch.device("meta"):
        model = SanaTransformer2DModel(**{key: config[key] for key in CONFIG_DEFAULTS})
        guided = {"guidance": torch.zeros(1)} if config["guidance_embeds"] else {}
        latent = torch.zeros(1, config["in_channels"], height, width)
        text = torch.zeros(1, text_tokens, config["caption_channels"])
        return count_flops(
            lambda: model(latent, encoder_hidden_states=text, timestep=torch.zeros(1), **guided)
        )


PROMPT = "a photo of a red circle"


@pytest.fixture(scope="module")
def base() -> Any:
    return open_checkpoint(str(asset("base.st")))


def count_image(checkpoint: Any, settings: SamplingSettings, prompt: str = PROMPT) -> ImageFlops:
    return ImageCosts(checkpoint, settings).of(prompt)


def test_the_parts_are_those_of_real_runs(base) -> None:
    settings = sampling_settings(base)
    counted = count_image(base, settings)
    parts = load_components(base, parts=("text_encoder", "vae"), dtype=torch.bfloat16)
    ids = torch.zeros(1, settings.max_sequence_length, dtype=torch.int64)
    latent = torch.zeros(1, base.config.in_channels, 8, 8, dtype=torch.bfloat16)
    runs = {
        "text": (parts.text_encoder, lambda: parts.text_encoder(ids)),
        "decoding": (parts.vae, lambda: parts.vae.decode(latent)),
    }
    for name, (model, run) in runs.items():
        whole, layers = getattr(counted, name), layers_flops(model, run)
        # Any dtype gives the same count, and what is no layer is attention.
        assert whole == count_flops(run), name
        assert layers <= whole <= 1.1 * layers, name
    assert counted.total == counted.text + counted.sampling + counted.decoding


@pytest.mark.parametrize("prompt", ["a star", "a red circle above a blue square " * 3])
@pytest.mark.parametrize("given", [{}, {"text_padding": "full"}, {"guidance_scale": 1.0}])
def test_the_count_is_what_sample_computes(base, prompt: str, given: dict[str, Any]) -> None:
    """Texts that are trimmed or padded to 70 tokens, and their keys and values once."""
    settings = sampling_settings(base, steps=3, fixed_batch=1, **given)
    settings = replace(settings, max_sequence_length=70)
    sana = Sana(base, settings, device=torch.device("cpu"), dtype=torch.float32, decode=False)
    sana.texts.prepare([prompt])
    guidance, model = sana.texts.guidance([prompt]), sana.transformer
    assert guidance.text.shape[1] == (70 if "text_padding" in given else 16 if prompt == "a star" else 32)
    counted = count_image(base, settings, prompt)
    assert counted.sampling == count_flops(lambda: sana.denoise(guidance, [1]))
    layers = layers_flops(model, lambda: sana.denoise(guidance, [1]))
    assert layers <= counted.sampling <= 1.2 * layers
    encoder = sana.texts.encoder()
    tokens = torch.zeros(1, sana.texts.encoder_tokens(prompt), dtype=torch.int64)
    assert counted.text == count_flops(lambda: encoder(tokens))


def test_a_longer_prompt_costs_more(base) -> None:
    settings = replace(sampling_settings(base), max_sequence_length=300)
    few, many = (count_image(base, settings, "a star " * n) for n in (2, 40))
    assert few.text < many.text and few.sampling < many.sampling and few.decoding == many.decoding
    full = replace(settings, text_padding="full")
    one, other = (count_image(base, full, "a star " * n) for n in (2, 40))
    assert one == other and one.sampling > many.sampling
    # The negative prompt is as long as the prompt, in every image.
    negative = replace(settings, negative_prompt="a star " * 40)
    assert count_image(base, negative, "a star").sampling == many.sampling


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
    ours: dict[str, Any] = {"height": 32, "width": 32, "steps": 20, "guided": True}
    assert sampling_flops(large, **ours, text_tokens=300) == pytest.approx(341_500e9, rel=0.001)
    assert sampling_flops(large, **ours, text_tokens=32) == pytest.approx(334_900e9, rel=0.001)


def test_guidance_steps_size_and_depth(base, tmp_path: Path) -> None:
    settings = sampling_settings(base)
    once = count_image(base, settings)
    more, most = (count_image(base, replace(settings, steps=steps)).sampling for steps in (40, 60))
    assert most - more == more - once.sampling < once.sampling  # the first step also computes keys and values
    unguided = count_image(base, replace(settings, guidance_scale=1.0)).sampling
    assert once.sampling < 2 * unguided < 1.01 * once.sampling  # the timestep's embedding is computed once
    large = count_image(base, replace(settings, height=128, width=64))
    assert large.decoding == 2 * once.decoding and large.text == once.text
    assert 1.8 * once.sampling < large.sampling < 2 * once.sampling
    with pytest.raises(InputError, match="names no text_encoder"):
        alone = open_checkpoint(str(synthetic_checkpoint(tmp_path / "alone.st")))
        count_image(alone, sampling_settings(alone))


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
