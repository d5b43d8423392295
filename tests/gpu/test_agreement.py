"""A GPU and the CPU agree: the built-in world's models, its judge, a training step, whole commands.

`SANACTL_TEST_DEVICE=cpu` tries these tests where there is no GPU: both sides are then the CPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sanactl.checkpoint.builtin import asset
from sanactl.checkpoint.open import Checkpoint, open_checkpoint
from sanactl.model.conditioning import Sana, sampling_settings
from sanactl.model.flow import sample_sigmas, velocity_loss
from sanactl.model.loading import load_components, load_transformer
from sanactl.optim import CAME8bit
from sanactl.sampling.importance import block_importance
from sanactl.shapes.dataset import batch

pytestmark = pytest.mark.gpu
PROMPTS = ["a photo of a star", "a photo of two blue circles", "a photo of a red square and a green cross"]


@pytest.fixture(autouse=True)
def _no_tf32() -> Iterator[None]:
    """fp32 is fp32: convolutions on GPUs have 10 bits of fraction by default."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


@pytest.fixture
def base() -> Checkpoint:
    return open_checkpoint(asset("base.st"))


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    """The norm of the difference over that of the second."""
    a, b = a.double().cpu(), b.double().cpu()
    return ((a - b).norm() / b.norm()).item()


def inputs(base: Checkpoint, device: Any) -> tuple[torch.Tensor, ...]:
    """Latents, noise, sigma, text and mask of four random examples."""
    generator = torch.Generator().manual_seed(0)
    side = base.config["sample_size"]
    shape = (4, base.config["in_channels"], side, side)
    latents, noise = (torch.randn(shape, generator=generator) for _ in range(2))
    text = torch.randn(4, 16, base.config["caption_channels"], generator=generator)
    mask = (torch.arange(16) < torch.tensor([[16], [9], [5], [2]])).long()
    sigma = sample_sigmas(4, 3.0, generator)
    return tuple(t.to(device) for t in (latents, noise, sigma, text, mask))


def draw(base: Checkpoint, device: Any, dtype: torch.dtype = torch.float32) -> np.ndarray:
    sana = Sana(base, sampling_settings(base, steps=3), device=torch.device(device), dtype=dtype)
    return np.concatenate([pixels for _, pixels in sana.draw(PROMPTS, [1, 2, 3])]).astype(float)


def gradients(base: Checkpoint, device: Any) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients of a training step on a device."""
    model = load_transformer(base, device=device).train()
    loss = velocity_loss(model, *inputs(base, device)).mean()
    loss.backward()
    return loss.item(), {name: p.grad.cpu() for name, p in model.named_parameters()}


def moves(base: Checkpoint, device: Any, given: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """How far two steps of CAME-8bit take the weights on a device, with these gradients."""
    model = load_transformer(base, device=device).train()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = CAME8bit(model.named_parameters(), lr=1e-4)
    for _ in range(2):
        for name, p in model.named_parameters():
            p.grad = given[name].to(device)
        optimizer.step()
    return {name: p.detach() - before[name] for name, p in model.named_parameters()}


def test_one_sample(base: Checkpoint, gpu: torch.device) -> None:
    difference = np.abs(draw(base, gpu) - draw(base, "cpu"))
    assert difference.mean() < 0.1
    assert (difference > 8).mean() < 1e-3


def test_one_sample_in_bf16(base: Checkpoint, gpu: torch.device) -> None:
    """On a CPU bf16 is 0.4 of 255 levels from fp32 in the mean, and one value in 130 by more than 8."""
    assert np.abs(draw(base, gpu, torch.bfloat16) - draw(base, "cpu")).mean() < 2


def test_an_image_does_not_depend_on_its_neighbours(base: Checkpoint, gpu: torch.device) -> None:
    dtype = torch.float32 if gpu.type == "cpu" else torch.bfloat16  # slow on many CPUs
    sana = Sana(base, sampling_settings(base, steps=2), device=gpu, dtype=dtype)
    together = np.concatenate([pixels for _, pixels in sana.draw(PROMPTS * 4, range(12))])
    for place in (0, 7, 11):
        ((_, alone),) = sana.draw([PROMPTS[place % 3]], [place])
        assert (alone[0] == together[place]).all()


def test_one_training_step(base: Checkpoint, gpu: torch.device) -> None:
    loss, found = gradients(base, gpu)
    wanted_loss, wanted = gradients(base, "cpu")
    assert loss == pytest.approx(wanted_loss, rel=1e-4)
    # Some gradients are zero but for rounding, such as those of keys' biases.
    noise = 1e-6 * max(g.norm() for g in wanted.values())
    for name, gradient in wanted.items():
        assert (found[name] - gradient).norm() < 2e-3 * gradient.norm() + noise, name


def test_two_steps_of_came8bit(base: Checkpoint, gpu: torch.device) -> None:
    """On a GPU these are the Triton kernels, on the CPU their torch twin."""
    _, given = gradients(base, "cpu")
    found, wanted = moves(base, gpu, given), moves(base, "cpu", given)
    for name, moved in wanted.items():
        assert apart(found[name], moved) < 1e-2, name


def test_autocast_trains(base: Checkpoint, gpu: torch.device) -> None:
    model = load_transformer(base, device=gpu).train()
    with torch.autocast(gpu.type, torch.bfloat16):
        loss = velocity_loss(model, *inputs(base, gpu)).mean()
    loss.backward()
    wanted = velocity_loss(load_transformer(base), *inputs(base, "cpu")).mean()
    assert loss.item() == pytest.approx(wanted.item(), rel=2e-2)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_the_autoencoder_and_the_text_encoder(base: Checkpoint, gpu: torch.device) -> None:
    pictures, _ = batch([0])
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
    ids = torch.tensor([[1, 5, 9, 4, 2]])
    found = []
    for device in (gpu, torch.device("cpu")):
        parts = load_components(base, parts=("text_encoder", "vae"), device=device)
        with torch.no_grad():
            latents = parts.vae.encode(pixels.to(device), return_dict=False)[0]
            again = parts.vae.decode(latents, return_dict=False)[0]
            found.append((latents, again, parts.text_encoder(ids.to(device))[0]))
    assert all(apart(a, b) < 1e-4 for a, b in zip(*found, strict=True))


def test_importance(base: Checkpoint, gpu: torch.device) -> None:
    settings = sampling_settings(base, steps=3)
    found, wanted = (
        [r["importance"] for r in block_importance(base, PROMPTS, settings, device=d, dtype=torch.float32)]
        for d in (gpu, torch.device("cpu"))
    )
    assert found == pytest.approx(wanted, rel=1e-3)


def test_the_judge(gpu: torch.device) -> None:
    from sanactl.judging.backends.vlm import VlmJudge

    pictures, records = batch(range(4))
    images, prompts = list(pictures), [record["prompt"] for record in records]
    found, wanted = (
        [
            (v.yes_logprob, v.no_logprob)
            for v in VlmJudge.load(str(asset("judge")), device=str(d), dtype="fp32").score(images, prompts)
        ]
        for d in (gpu, "cpu")
    )
    assert np.allclose(found, wanted, rtol=1e-2, atol=1e-3)


def test_a_short_run_of_finetune(base: Checkpoint, gpu: torch.device, tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    from sanactl.data import ShapesSource
    from sanactl.training.finetune import FinetuneSettings, finetune

    settings = FinetuneSettings(
        steps=4, batch_size=4, clip=1.0, warmup=2, max_sequence_length=16, complex_human_instruction=False
    )
    losses: list[list[float]] = []
    for device in (gpu.type, "cpu"):
        curve: list[dict[str, Any]] = []
        target = tmp_path / f"{device}-{len(losses)}.st"
        finetune(base, ShapesSource(0), replace(settings, device=device), target=target, on_step=curve.append)
        assert target.is_file()
        losses.append([point["loss"] for point in curve])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
