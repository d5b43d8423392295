"""The memory of a training step beside what stays: one forward and backward pass of the real model on fake tensors.

Fake tensors have shapes and no memory, so the pass takes a fraction of a second. It is divided into phases. The peak of
each phase is linear in the number of blocks, so passes of two and three blocks give that of any number.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from sanactl.checkpoint.config import CONFIG_DEFAULTS

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Pass", "Peak", "frozen", "pass_peaks"]

# Blocks of the two passes that are extrapolated.
_FEW, _MORE = 2, 3


@dataclass(frozen=True)
class Pass:
    """One forward and backward pass.

    Attributes:
        config: of the `SanaTransformer2DModel`, without `num_layers` (`frozen`).
        shape: latents of an image, [C, h, w].
        tokens: text tokens of an image.
        images: that go through at once.
        bf16: under autocast.
        checkpointing: whether each block is computed again in the backward pass.
        continued: whether the parameters have gradients already, of an earlier part of the batch.
        blocks_only: whether nothing before or after the blocks is trained.
        lora: rank of adapters, which are then trained alone; 0: none.
        teacher: "velocity", "features", or None: what it is compared with.
    """

    config: tuple[tuple[str, Any], ...]
    shape: tuple[int, int, int]
    tokens: int
    images: int
    bf16: bool = False
    checkpointing: bool = False
    continued: bool = False
    blocks_only: bool = False
    lora: int = 0
    teacher: str | None = None


class Peak(NamedTuple):
    """The most bytes that a phase takes.

    Attributes:
        total: activations, their gradients, and what is made of the weights for the pass (bf16 copies).
        gradients: of the parameters, as far as they are made by then; not part of `total`.
    """

    total: int
    gradients: int


def pass_peaks(step: Pass, blocks: int) -> dict[str, Peak]:
    """The peak of every phase of a pass through so many blocks."""
    if blocks <= _MORE:
        return dict(_measured(step, blocks))
    few, more = _measured(step, _FEW), _measured(step, _MORE)
    further = blocks - _MORE
    return {
        name: Peak(*(b + further * max(0, b - a) for a, b in zip(few[name], more[name], strict=True)))
        for name in few
    }


def frozen(config: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """A config as a key of a cache: what the class knows. Settings of a later diffusers are left out."""
    return tuple((key, config[key]) for key in CONFIG_DEFAULTS if key in config and key != "num_layers")


@lru_cache(maxsize=64)
def _measured(step: Pass, blocks: int) -> Mapping[str, Peak]:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        return run_pass(step, blocks)


def run_pass(step: Pass, blocks: int) -> Mapping[str, Peak]:
    """Runs a pass and gives the peak of every phase; outside of a `FakeTensorMode` on real tensors, as tests do."""
    import torch

    from sanactl.model.flow import velocity_loss
    from sanactl.training.live import LiveBytes

    model = _model(step, blocks)
    trained = [p for p in model.parameters() if p.requires_grad]
    if step.continued:
        for parameter in trained:
            parameter.grad = torch.zeros_like(parameter)
    teacher = None
    if step.teacher is not None:
        from sanactl.training.teacher import Teacher

        kept = list(range(blocks)) if step.teacher == "features" else None
        teacher = Teacher(_teacher(step, blocks), model, kept)
    made = _Made(trained)
    with LiveBytes(lambda: made.bytes) as live:
        phases = _Phases(live, model)
        inputs = _inputs(step)
        with torch.autocast("cpu", torch.bfloat16, enabled=step.bf16):
            if teacher is None:
                loss = velocity_loss(model, *inputs)
            else:
                errors = teacher.errors(model, *inputs)
                loss = 0.5 * errors.data + 0.5 * errors.velocity + errors.features
        phases.backward()
        loss.sum().backward()
        phases.enter("the end")
    return {name: Peak(total - gradients, gradients) for name, (total, gradients) in phases.peaks.items()}


def _model(step: Pass, blocks: int) -> Any:
    from diffusers import SanaTransformer2DModel

    from sanactl.training.precision import keep_attention_fp32

    options: dict[str, Any] = {**dict(step.config), "num_layers": blocks}
    model = SanaTransformer2DModel(**options).train()
    keep_attention_fp32(model)
    if step.checkpointing:
        model.enable_gradient_checkpointing()
    if step.blocks_only:
        model.requires_grad_(False)
        model.transformer_blocks.requires_grad_(True)
    if step.lora:
        _adapt(model, step.lora)
    return model


def _teacher(step: Pass, blocks: int) -> Any:
    """A model in the dtype of a teacher. Its depth does not matter: a pass without gradients keeps nothing of a block."""
    import torch

    before = torch.get_default_dtype()
    # Modules of fake tensors cannot be cast.
    torch.set_default_dtype(torch.bfloat16 if step.bf16 else torch.float32)
    try:
        return _model(replace(step, checkpointing=False, blocks_only=False, lora=0), blocks)
    finally:
        torch.set_default_dtype(before)


def _adapt(model: Any, rank: int) -> None:
    """Adds adapters as peft does, which cannot do it with fake tensors."""
    import torch

    from sanactl.training.trainable import ADAPTED

    class Adapted(torch.nn.Module):
        def __init__(self, base: Any) -> None:
            super().__init__()
            self.base = base
            self.down = torch.nn.Linear(base.in_features, rank, bias=False)
            self.up = torch.nn.Linear(rank, base.out_features, bias=False)

        def forward(self, x: Any) -> Any:
            return self.base(x) + self.up(self.down(x)) * 1.0

    model.requires_grad_(False)
    for block in model.transformer_blocks:
        for attention in (block.attn1, block.attn2):
            for name in ADAPTED:
                parent, _, last = name.rpartition(".")
                owner = attention.get_submodule(parent) if parent else attention
                setattr(owner, last, Adapted(getattr(owner, last)))


def _inputs(step: Pass) -> tuple[Any, ...]:
    """As `velocity_loss` takes them."""
    import torch

    latents = torch.zeros(step.images, *step.shape)
    text = torch.zeros(step.images, step.tokens, dict(step.config)["caption_channels"])
    mask = torch.ones(step.images, step.tokens, dtype=torch.int64)
    return latents, torch.zeros_like(latents), torch.zeros(step.images), text, mask


class _Made:
    """Counts the bytes of the gradients that parameters have got, those aside that they had."""

    def __init__(self, trained: list[Any]) -> None:
        self.bytes = 0
        for parameter in trained:
            if parameter.grad is None:
                parameter.register_post_accumulate_grad_hook(self._count)

    def _count(self, parameter: Any) -> None:
        self.bytes += parameter.grad.untyped_storage().nbytes()


class _Phases:
    """Divides a pass by the first and the last block, and keeps each phase's peak: (bytes, gradients of parameters)."""

    def __init__(self, live: Any, model: Any) -> None:
        self.live, self.peaks = live, dict[str, tuple[int, int]]()
        self._name, self._forward = "inputs", True
        blocks = model.transformer_blocks
        for place, block in enumerate(blocks):
            block.register_forward_pre_hook(self._before(place, len(blocks)))
            block.register_forward_hook(self._after(place, len(blocks)))

    def enter(self, name: str) -> None:
        before = self.peaks.get(self._name, (0, 0))
        self.peaks[self._name] = max(before, (self.live.peak, self.live.at_peak))
        self.live.restart()
        self._name = name

    def backward(self) -> None:
        self._forward = False
        self.enter("end, backward")

    def _before(self, place: int, blocks: int) -> Any:
        def enter(module: Any, arguments: Any) -> None:
            if not self._forward:  # computed again
                return
            self.enter(f"{_which(place, blocks)}, forward")
            if place == 0 and arguments[0].requires_grad:
                arguments[0].register_hook(lambda gradient: self.enter("start, backward"))

        return enter

    def _after(self, place: int, blocks: int) -> Any:
        def enter(module: Any, arguments: Any, output: Any) -> None:
            if not self._forward:
                return
            if place == blocks - 1:
                self.enter("end, forward")
            output.register_hook(lambda gradient: self.enter(f"{_which(place, blocks)}, backward"))

        return enter


def _which(place: int, blocks: int) -> str:
    """The first block and the last have phases of their own; between them the peak changes evenly."""
    if place == 0:
        return "first block"
    return "last block" if place == blocks - 1 else "a block between"
