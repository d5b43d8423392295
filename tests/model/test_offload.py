"""Where models wait, tiles of the autoencoder, and what is compiled: which of them are settings of an image."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sanactl.checkpoint.builtin import asset
from sanactl.checkpoint.open import open_checkpoint
from sanactl.errors import InputError, UsageError
from sanactl.model.compiled import check_compiler, compiling
from sanactl.model.conditioning import Sana, sampling_settings
from sanactl.model.offload import check_offload
from sanactl.model.sampler import decode_latents
from sanactl.model.sampling_settings import SamplingSettings, tile_size
from tests.program import Program

CPU = torch.device("cpu")


def sana(offload: str = "none", **settings: object) -> Sana:
    base = open_checkpoint(asset("base.st"))
    return Sana(
        base, sampling_settings(base, steps=1, **settings), device=CPU, dtype=torch.float32, offload=offload
    )


def test_images_do_not_depend_on_where_models_wait() -> None:
    """With hooks that move them from the CPU to the CPU; two portions, so that each comes and goes twice."""
    (_, plain), *_ = sana(fixed_batch=2).draw(["a star"] * 2, [1, 2])
    for offload in ("model", "group"):
        found = sana(offload, fixed_batch=1)
        found.one_thread_each = False
        for seed, image in zip((1, 2), plain, strict=True):
            (_, one), *_ = found.draw(["a star"], [seed])
            assert np.abs(one[0].astype(int) - image).max() <= 1  # another fixed batch


def test_offload_is_for_gpus(place: object, sanactl: Program) -> None:
    check_offload("none", CPU)
    check_offload("group", torch.device("cuda"))
    with pytest.raises(UsageError, match="--offload takes none, model or group, not"):
        check_offload("disk", torch.device("cuda"))
    assert "has no effect on a CPU" in sanactl.fails(
        "sample", "--offload", "model", "--device", "cpu", code=2
    )


def test_settings_of_an_image() -> None:
    base = open_checkpoint(asset("base.st"))
    plain = sampling_settings(base)
    assert not {"vae_tiling", "compile"} & plain.identity().keys()  # folders of earlier versions go on
    assert not sampling_settings(base, height=1024).vae_tiling
    assert sampling_settings(base, height=1032).vae_tiling
    assert not sampling_settings(base, height=1032, vae_tiling="off").vae_tiling
    tiled = sampling_settings(base, vae_tiling="on", compile=True)
    assert tiled.identity() == {**plain.identity(), "vae_tiling": True, "compile": True}
    with pytest.raises(UsageError, match="--vae-tiling 'maybe'"):
        sampling_settings(base, vae_tiling="maybe")
    assert tile_size(SamplingSettings()) == (512, 448)
    assert tile_size(SamplingSettings(height=2048)) == (1024, 896)


def test_tiles_cover_the_image() -> None:
    found = sana(vae_tiling="on", height=576, width=64)
    latents = torch.randn(1, *found.latent_shape(), generator=torch.Generator().manual_seed(0))
    vae = found.components.vae
    tiled = decode_latents(vae, latents)
    vae.disable_tiling()
    whole = decode_latents(vae, latents)
    assert tiled.shape == whole.shape == (1, 576, 64, 3)
    assert (tiled[:, :400] == whole[:, :400]).float().mean() > 0.9
    assert not tiled.equal(whole)


def test_a_compiler_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    with pytest.raises(UsageError, match="needs a C\\+\\+ compiler"):
        check_compiler(CPU)
    with pytest.raises(UsageError, match="needs a C\\+\\+ compiler"):
        sana(compile=True)
    from torch._dynamo.exc import InternalTorchDynamoError

    with pytest.raises(InputError, match="--compile: it broke"), compiling():
        raise InternalTorchDynamoError("it broke.\nmore")
