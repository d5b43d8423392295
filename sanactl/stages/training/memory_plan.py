"""How much memory a run of `finetune` will take, told before it starts, and what to change where that is too much.

What stays from step to step is arithmetic on shapes (`sanactl.surgery.memory`). Activations are counted in the real
diffusers class: one and two blocks of it are run on fake tensors, which have shapes and no memory, while torch reports
what autograd keeps for the backward pass; that is linear in blocks and images, so four such runs give any size.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from sanactl.errors import UsageError
from sanactl.surgery.memory import training_memory

if TYPE_CHECKING:
    import torch

    from sanactl.io.checkpoint import Checkpoint
    from sanactl.stages.training.settings import FinetuneSettings

__all__ = ["MemoryPlan", "activation_bytes", "plan_memory", "saved_for_backward"]

_FP32, _BF16 = 4, 2


@dataclass(frozen=True)
class MemoryPlan:
    """What a run takes on one device, in bytes.

    Attributes:
        parts: weights, gradients, optimizer, average, buckets (of DDP), teacher, activations, encoders; none of 0.
        available: free on the device now.
        capacity: of the device.
        savers: options that save memory, by what the run would take with each and those before it.
        unknown: what could not be counted.
    """

    parts: Mapping[str, int]
    available: int
    capacity: int
    savers: Mapping[str, int]
    unknown: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        return sum(self.parts.values())

    @cached_property
    def summary(self) -> str:
        """One line: what is needed, for what, and what there is."""
        listed = ", ".join(f"{name} {_human(size)}" for name, size in self.parts.items())
        without = f", without {' and '.join(self.unknown)}" if self.unknown else ""
        return f"training needs about {_human(self.total)} ({listed}{without}); {_human(self.available)} are free"

    @cached_property
    def advice(self) -> str | None:
        """What to change where it will not fit, or None where it will."""
        if self.total <= self.available:
            return None
        tried = []
        for option, total in self.savers.items():
            tried.append(f"{option} ({_human(total)})")
            if total <= self.available:
                return f"training may not fit; it should with {' and '.join(tried)}"
        hint = f" even with {' and '.join(tried)}" if tried else ""
        return f"training may not fit{hint}; take a larger device, a shallower checkpoint, or --lora"

    def check(self) -> None:
        """Raises UsageError where not even what stays from step to step fits an empty device."""
        stays = self.total - self.parts.get("activations", 0) - self.parts.get("encoders", 0)
        if stays > self.capacity and all(total > self.capacity for total in self.savers.values()):
            raise UsageError(
                f"the device has {_human(self.capacity)} in all, and {self.summary}",
                hint="take a larger device, or --lora",
            )


def plan_memory(
    checkpoint: Checkpoint,
    settings: FinetuneSettings,
    *,
    device: torch.device,
    processes: int = 1,
    teacher: Checkpoint | None = None,
    encoded: bool = False,
    blocks: list[int] | None = None,
) -> MemoryPlan:
    """The plan of one process of a run.

    Args:
        device: that it will train on.
        processes: of the run, all together.
        encoded: whether the data are latents and embeddings already, so that no encoder is loaded.
        blocks: the only ones that are trained; None for all.
    """
    encoders, unknown = (0, []) if encoded else _encoder_bytes(checkpoint)

    def parts(chosen: FinetuneSettings, encoders: int = encoders) -> dict[str, int]:
        shapes = _trained_shapes(checkpoint, chosen, blocks)
        kept = training_memory(shapes, chosen.optimizer, ema=bool(chosen.ema))
        found = {
            "weights": checkpoint.num_parameters * _FP32,
            "gradients": kept["gradients"],
            "optimizer": kept["optimizer"],
            "average": kept["ema"],
            "buckets": kept["gradients"] if processes > 1 else 0,
            "teacher": 0 if teacher is None else teacher.num_parameters * _teacher_bytes(chosen),
            "activations": _activations(checkpoint, chosen, processes, blocks),
            "encoders": encoders,
        }
        return {name: size for name, size in found.items() if size}

    free, capacity = _device_memory(device)
    savers: dict[str, int] = {}
    chosen = settings
    share = -(-settings.batch_size // processes)
    for option, changes in (
        (f"--accumulate {share}", {"accumulate": share}),
        ("--gradient-checkpointing", {"gradient_checkpointing": True}),
        ("--optimizer came8bit", {"optimizer": "came8bit"}),
    ):
        if any(getattr(chosen, name) != value for name, value in changes.items()):
            chosen = replace(chosen, **changes)
            savers[option] = sum(parts(chosen).values())
    if encoders:
        savers["data made by sanactl encode"] = sum(parts(chosen, encoders=0).values())
    return MemoryPlan(parts(settings), free, capacity, savers, tuple(unknown))


def activation_bytes(
    config: Mapping[str, Any],
    shape: tuple[int, int, int],
    tokens: int,
    images: int,
    *,
    blocks: int,
    bf16: bool = False,
    checkpointing: bool = False,
) -> int:
    """What autograd keeps for the backward pass of one forward pass; with gradient checkpointing, at its worst.

    Args:
        config: of the `SanaTransformer2DModel`.
        shape: latents of an image, [C, h, w].
        tokens: text tokens of an image.
        images: that go through at once.
        blocks: through which gradients flow.
        bf16: under autocast; then the weights' bf16 copies count, which are kept from the forward to the backward pass.
    """
    counted = {
        (depth, batch): saved_for_backward(_frozen(config), depth, batch, shape, tokens, bf16)
        for depth in (1, 2)
        for batch in (2, 3)
    }
    a, b, c, d = counted[1, 2], counted[1, 3], counted[2, 2], counted[2, 3]
    block_image = (d - c) - (b - a)  # of one block and one image
    image = (b - a) - block_image  # of one image outside the blocks
    block = (c - a) - 2 * block_image  # of one block, whatever the images
    rest = a - block - 2 * image - 2 * block_image
    if not checkpointing:
        return rest + blocks * block + images * (image + blocks * block_image)
    patch = int(config.get("patch_size") or 1)
    width = int(config["num_attention_heads"]) * int(config["attention_head_dim"])
    border = (
        shape[1] // patch * (shape[2] // patch) * width * _FP32
    )  # a block's input, which is all that stays of it
    return rest + blocks * block + images * (image + block_image + blocks * border)


@lru_cache(maxsize=64)
def saved_for_backward(
    config: tuple[tuple[str, Any], ...],
    blocks: int,
    images: int,
    shape: tuple[int, int, int],
    tokens: int,
    bf16: bool,
    fake: bool = True,
) -> int:
    """Bytes of all tensors that autograd saves in one forward pass, parameters not counted.

    Args:
        fake: run it without memory and arithmetic; False is for tests.
    """
    import torch
    from diffusers import SanaTransformer2DModel
    from torch._subclasses.fake_tensor import FakeTensorMode

    from sanactl.stages.training.precision import keep_attention_fp32

    saved: list[torch.Tensor] = []  # kept alive, or a later storage may be taken for one of these

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        saved.append(tensor)
        return tensor

    options: dict[str, Any] = {**dict(config), "num_layers": blocks}
    with FakeTensorMode() if fake else contextlib.nullcontext():
        model = SanaTransformer2DModel(**options).train()
        keep_attention_fp32(model)
        inputs: dict[str, Any] = {
            "hidden_states": torch.zeros(images, *shape),
            "encoder_hidden_states": torch.zeros(images, tokens, options["caption_channels"]),
            "encoder_attention_mask": torch.ones(images, tokens),
            "timestep": torch.zeros(images),
        }
        with (
            torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
            torch.autocast("cpu", torch.bfloat16, enabled=bf16),
        ):
            model(**inputs)
        own = {p.untyped_storage()._cdata for p in model.parameters()}
        sizes = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in saved}
    return sum(size for key, size in sizes.items() if key not in own)


def _activations(
    checkpoint: Checkpoint, settings: FinetuneSettings, processes: int, trained: list[int] | None
) -> int:
    from sanactl.stages.conditioning import pixels_per_latent

    factor = pixels_per_latent(checkpoint)
    share = -(-settings.batch_size // processes)
    return activation_bytes(
        checkpoint.config,
        (int(checkpoint.config["in_channels"]), settings.height // factor, settings.width // factor),
        settings.max_sequence_length,
        -(-share // settings.accumulate),
        # Before the first block that is trained nothing is kept.
        blocks=checkpoint.num_blocks - (min(trained) if trained else 0),
        bf16=settings.precision == "bf16",
        checkpointing=settings.gradient_checkpointing,
    )


def _trained_shapes(
    checkpoint: Checkpoint, settings: FinetuneSettings, blocks: list[int] | None
) -> dict[str, tuple[int, ...]]:
    shapes = {name: ref.shape for name, ref in checkpoint.tensors.items()}
    if settings.lora:
        adapted = [
            n
            for n in shapes
            if n.endswith((".to_q.weight", ".to_k.weight", ".to_v.weight", ".to_out.0.weight"))
        ]
        down = {f"{n}.lora_A": (settings.lora, shapes[n][1]) for n in adapted}
        return {**down, **{f"{n}.lora_B": (shapes[n][0], settings.lora) for n in adapted}}
    if blocks is None:
        return shapes
    prefixes = tuple(f"transformer_blocks.{block}." for block in blocks)
    return {name: shape for name, shape in shapes.items() if name.startswith(prefixes)}


def _teacher_bytes(settings: FinetuneSettings) -> int:
    return _BF16 if settings.precision == "bf16" else _FP32


def _encoder_bytes(checkpoint: Checkpoint) -> tuple[int, list[str]]:
    """Bytes in fp32 of the text encoder and the autoencoder, and those that are not on this machine yet."""
    from pathlib import Path

    from sanactl.diffusion.loading import companion_source
    from sanactl.errors import InputError
    from sanactl.io.safetensors import read_header

    total, unknown = 0, []
    for part, name in (("text_encoder", "the text encoder"), ("vae", "the autoencoder")):
        entry = checkpoint.companions.get(part)
        try:
            source, options = companion_source(checkpoint, entry) if entry else ("", {})
            files = (
                sorted((Path(source) / (options.get("subfolder") or "")).glob("*.safetensors"))
                if entry
                else []
            )
            if not files:
                unknown.append(name)
            for file in files:
                total += sum(math.prod(t.shape) for t in read_header(file).tensors.values()) * _FP32
        except InputError:
            unknown.append(name)
    return total, unknown


def _device_memory(device: torch.device) -> tuple[int, int]:
    """Free bytes and all bytes of a device; processes on the CPU share what there is."""
    import os

    import psutil
    import torch

    if device.type == "cuda":
        free, capacity = torch.cuda.mem_get_info(device)
        return int(free), int(capacity)
    memory = psutil.virtual_memory()
    share = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return memory.available // share, memory.total // share


def _frozen(config: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """A config as a key of a cache, without what the class does not take."""
    plain = {k: v for k, v in config.items() if not k.startswith("_") and not isinstance(v, list | dict)}
    return tuple(sorted((k, v) for k, v in plain.items() if k != "num_layers"))


def _human(size: int) -> str:
    """Bytes in decimal units."""
    for limit, unit in ((1e9, "GB"), (1e6, "MB")):
        if size >= limit:
            return f"{size / limit:.3g} {unit}"
    return f"{size / 1e3:.3g} kB"
