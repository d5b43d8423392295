"""Components that are damaged, of other models or hostile: one line that names the component and the file."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sanactl.checkpoint.builtin import asset
from sanactl.checkpoint.open import Checkpoint, open_checkpoint
from sanactl.errors import InputError
from sanactl.model.components import load_text_encoder
from sanactl.model.guard import pin_attention, reading
from sanactl.model.loading import load_components
from tests.program import Program

PARTS = ("text_encoder", "tokenizer", "vae", "scheduler")
CONFIGS = {
    "text_encoder": "config.json",
    "vae": "config.json",
    "scheduler": "scheduler_config.json",
    "tokenizer": "tokenizer_config.json",
}
MODEL = "text_encoder/model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"


@pytest.fixture
def world(place: Path) -> Path:
    """The built-in components as files of one's own; place/tiny.st is what needs them."""
    for part in PARTS:
        shutil.copytree(asset(part), place / "world" / part)
    return place / "world"


def checkpoint_of(world: Path, *, kept: tuple[str, ...] = PARTS) -> Checkpoint:
    tiny = open_checkpoint("tiny.st")
    own = {part: {"source": str(world), "subfolder": part} for part in kept}
    return replace(tiny, components={**tiny.components, **own})


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def change_tensors(path: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    state = load_file(path)
    change(state)
    save_file(state, path, metadata={"format": "pt"})


def to_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def tried(checkpoint: Checkpoint, part: str) -> str | None:
    """What is said of a component, or None where it loads; anything but one of our errors fails the test."""
    try:
        load_components(checkpoint, parts=(part,))
    except InputError as error:
        return str(error)
    return None


DAMAGE: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "text encoder cut short": (MODEL, lambda p: os.truncate(p, 100_000), "model.safetensors is truncated"),
    "vae cut short": (VAE, lambda p: os.truncate(p, 100_000), "diffusion_pytorch_model.safetensors is truncated"),
    "text encoder without a tensor": (
        MODEL,
        lambda p: change_tensors(p, lambda s: s.pop("layers.1.mlp.up_proj.weight")),
        "lacks the tensor layers.1.mlp.up_proj.weight",
    ),
    "text encoder with a wrong shape": (
        MODEL,
        lambda p: change_tensors(p, lambda s: s.update({"norm.weight": torch.ones(5)})),
        "norm.weight has the shape (5,) where its config needs (96,)",
    ),
    "vae without a tensor": (
        VAE,
        lambda p: change_tensors(p, lambda s: s.pop("decoder.conv_in.weight")),
        "lacks the tensor decoder.conv_in.weight",
    ),
    "vae with a wrong shape": (
        VAE,
        lambda p: change_tensors(p, lambda s: s.update({"decoder.conv_in.bias": torch.ones(5)})),
        "decoder.conv_in.bias has the shape (5,) where",
    ),
    "weights that are a pipe": (MODEL, to_pipe, "not a regular file"),
    "weights pickled": (MODEL, lambda p: p.rename(p.parent / "pytorch_model.bin"), "only pickled weights"),
    "no config": ("vae/config.json", Path.unlink, "holds no config.json"),
    "config that is no JSON": ("text_encoder/config.json", lambda p: p.write_text("{"), "not valid JSON"),
    "config that is a list": ("vae/config.json", lambda p: p.write_text("[]"), "not hold a JSON object"),
    "no heads": ("text_encoder/config.json", lambda p: edit(p, num_attention_heads=0), "text_encoder"),
    "a thousand million layers": (
        "text_encoder/config.json",
        lambda p: edit(p, num_hidden_layers=10**9, layer_types=None),
        "num_hidden_layers is 1000000000; at most 1,024",
    ),
    "far too wide": (
        "text_encoder/config.json",
        lambda p: edit(p, hidden_size=96 * 2**14),
        "describes a model of",
    ),
    "of an unknown class": ("text_encoder/config.json", lambda p: edit(p, model_type="moon"), "moon"),
    "another VAE": ("vae/config.json", lambda p: edit(p, _class_name="AutoencoderKL"), "not AutoencoderDC"),
    "a VAE of another scale": ("vae/config.json", lambda p: edit(p, scaling_factor=0), "scaling_factor is 0"),
    "no scheduler": ("scheduler/scheduler_config.json", lambda p: edit(p, _class_name="SchedulerMixin"), "diffusers has no scheduler 'SchedulerMixin'"),
    "a class that is no scheduler": (
        "scheduler/scheduler_config.json",
        lambda p: edit(p, _class_name="__name__"),
        "diffusers has no scheduler",
    ),
    "a scheduler for noise": (
        "scheduler/scheduler_config.json",
        lambda p: edit(p, prediction_type="epsilon", use_flow_sigmas=False),
        "does not sample SANA",
    ),
    "a scheduler that cannot": (
        "scheduler/scheduler_config.json",
        lambda p: edit(p, _class_name="EulerDiscreteScheduler"),
        "flow_prediction",
    ),
    "endless timesteps": (
        "scheduler/scheduler_config.json",
        lambda p: edit(p, num_train_timesteps=10**9),
        "num_train_timesteps is 1000000000",
    ),
    "noise without a seed": (
        "scheduler/scheduler_config.json",
        lambda p: edit(p, _class_name="FlowMatchEulerDiscreteScheduler", stochastic_sampling=True),
        "no seed decides",
    ),
    "no tokenizer": ("tokenizer/tokenizer.json", Path.unlink, "tokenizer"),
    "an empty tokenizer": ("tokenizer/tokenizer.json", lambda p: p.write_text("{}"), "tokenizer"),
}  # fmt: skip
NAMES = {"text_encoder": "its text encoder", "vae": "its VAE"}


@pytest.mark.parametrize("what", DAMAGE)
def test_damaged_components_give_one_line(world: Path, what: str) -> None:
    file, damage, said = DAMAGE[what]
    damage(world / file)
    part = file.split("/")[0]
    with pytest.raises(InputError) as caught:
        load_components(checkpoint_of(world), parts=(part,))
    assert said in caught.value.message
    assert caught.value.message.startswith(f"tiny.st: {NAMES.get(part, f'its {part}')}: ")
    assert str(world / part) in caught.value.message or "EulerDiscreteScheduler" in caught.value.message
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 700


VALUES: list[Any] = [None, 0, -1, 3, 10**9, 10**30, 1.5, "x", [], {}, True, [[]], 1e300]


def test_configs_with_anything_in_them_give_one_line_or_load(world: Path) -> None:
    """Every key of every config, with values that have no business there."""
    rng = random.Random(0)
    failed = 0
    for part, name in CONFIGS.items():
        path = world / part / name
        before = path.read_text()
        for key in json.loads(before):
            edit(path, **{key: rng.choice(VALUES)})
            if said := tried(checkpoint_of(world, kept=(part,)), part):
                failed += 1
                assert "\n" not in said, (part, key)
            path.write_text(before)
    assert failed > 30


def test_tokenizers_with_anything_in_them_give_one_line_or_load(world: Path) -> None:
    rng = random.Random(0)
    path = world / "tokenizer/tokenizer.json"
    before = path.read_text()
    for _ in range(40):
        whole = json.loads(before)
        spot = whole
        while True:
            key = rng.choice(list(spot) if isinstance(spot, dict) else range(len(spot)))
            if not isinstance(spot[key], dict | list) or not spot[key] or rng.random() < 0.3:
                break
            spot = spot[key]
        spot[key] = rng.choice(VALUES)
        path.write_text(json.dumps(whole))
        assert "\n" not in (tried(checkpoint_of(world, kept=("tokenizer",)), "tokenizer") or "")


def test_a_setting_of_a_later_diffusers_is_left_out(place: Path, sanactl: Program) -> None:
    """As diffusers does it."""
    sanactl("convert", "tiny.st", "-o", "later")
    edit(place / "later/config.json", brand_new=1)
    sanactl("convert", "later", "-o", "later.st")
    assert open_checkpoint("later.st").config.other == {"brand_new": 1}
    tiny = open_checkpoint("tiny.st")
    from sanactl.model.loading import load_transformer

    assert load_transformer(replace(open_checkpoint("later.st"), components=tiny.components)) is not None


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Hub is not switched off; whoever asks for it fails the test."""
    from huggingface_hub import constants

    def refuse(*arguments: Any, **options: Any) -> None:
        raise AssertionError("something was asked of the network")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_a_config_cannot_have_a_kernel_fetched(world: Path, online: None) -> None:
    for key in ("_attn_implementation", "attn_implementation", "_experts_implementation"):
        edit(world / "text_encoder/config.json", **{key: "kernels-community/flash-attn"})
    model = load_text_encoder(str(world / "text_encoder"), {}, device="cpu", dtype=torch.float32)
    assert model.config._attn_implementation in ("eager", "sdpa")


def test_parts_of_a_config_are_pinned_too() -> None:
    from transformers import LlavaConfig

    config = LlavaConfig()
    config.vision_config._attn_implementation = "kernels-community/flash-attn"
    pin_attention(config)
    assert config.vision_config._attn_implementation is None


@pytest.mark.parametrize("part", ["text_encoder", "tokenizer"])
def test_code_in_a_component_never_runs(world: Path, online: None, part: str) -> None:
    marker = world / "ran"
    (world / part / "evil.py").write_text(f"open({str(marker)!r}, 'w')\n")
    code = {"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil", "AutoTokenizer": ["evil.Evil", "evil.Evil"]}
    edit(world / part / CONFIGS[part], auto_map=code)
    edit(world / part / CONFIGS[part], model_type="evil", tokenizer_class="Evil")
    with pytest.raises(InputError):
        load_components(checkpoint_of(world), parts=(part,))
    assert not marker.exists()


def test_components_of_other_models_are_told_apart(world: Path, sanactl: Program) -> None:
    """A tokenizer with more words than the text encoder has; a text encoder and a VAE of another width."""
    from sanactl.model.conditioning import Sana, sampling_settings

    def said(checkpoint: Checkpoint) -> str:
        with pytest.raises(InputError) as caught:
            sana = Sana(
                checkpoint, sampling_settings(checkpoint), device=torch.device("cpu"), dtype=torch.float32
            )
            sana.texts.guidance(["a red circle"])
        return caught.value.message

    tiny = open_checkpoint("tiny.st")
    channels = replace(tiny, config=replace(tiny.config, in_channels=4))
    assert "VAE makes latents of 8 channels" in said(channels)
    change_tensors(world / MODEL, lambda s: s.update({"embed_tokens.weight": s["embed_tokens.weight"][:10]}))
    edit(world / "text_encoder/config.json", vocab_size=10)
    assert "and the text encoder knows 10" in said(checkpoint_of(world, kept=("text_encoder",)))


def test_variants_are_found(world: Path) -> None:
    """A folder that was downloaded with variant="fp16" holds no other file."""
    for file in (MODEL, VAE):
        path = world / file
        path.rename(path.with_name(path.name.replace(".safetensors", ".fp16.safetensors")))
    found = load_components(checkpoint_of(world), parts=("text_encoder", "vae"))
    plain = load_components(open_checkpoint("tiny.st"), parts=("text_encoder", "vae"))
    for one, other in ((found.vae, plain.vae), (found.text_encoder, plain.text_encoder)):
        states = one.state_dict(), other.state_dict()
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[1])


def test_what_passes_through_a_guard() -> None:
    with pytest.raises(KeyboardInterrupt), reading("x"):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            # As a library that cleans up and fails on the way.
            raise ValueError("half a file")  # noqa: B904
    with pytest.raises(MemoryError), reading("x"):
        raise MemoryError
    with pytest.raises(InputError, match="an environment variable; where there is a network"), reading("x"):
        raise OSError(
            "no cached snapshot folder.\nTo download, set 'HF_HUB_OFFLINE=0' as an environment variable."
        )
    assert str(InputError("Wait...", hint="go on")) == "Wait...; go on"
    with pytest.raises(InputError, match="x cannot be used: KeyError 'y'"), reading("x"):
        raise KeyError("y")
