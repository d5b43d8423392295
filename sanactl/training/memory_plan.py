"""How much memory a run of `finetune` will take, computed before it starts, and what to change where that is too much.

What stays from step to step is arithmetic on shapes (`sanactl.surgery.memory`). Activations are counted in the real
diffusers class: one and two blocks of it are run on fake tensors, which have shapes and no memory, while torch reports
what autograd keeps for the backward pass; that is linear in blocks and images, so four such runs give any size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sanactl.errors import UsageError
from sanactl.files.human import human_bytes
from sanactl.surgery.memory import training_memory
from sanactl.training.activations import activation_bytes

if TYPE_CHECKING:
    import torch

    from sanactl.checkpoint.open import Checkpoint
    from sanactl.training.settings import FinetuneSettings

__all__ = ["MemoryPlan", "plan_memory"]

_FP32, _BF16 = 4, 2


@dataclass(frozen=True)
class MemoryPlan:
    """What a run takes on one device, in bytes.

    Attributes:
        parts: weights, gradients, optimizer, average, buckets (to share gradients), part gradients (of the batch's parts
            that are computed side by side), teacher, collected blocks (of a sharded model), activations, encoders; none
            of 0.
        available: free on the device now.
        capacity: of the device.
        savers: options that save memory, by what the run would take with it and those before it.
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
        listed = ", ".join(f"{name} {human_bytes(size)}" for name, size in self.parts.items())
        without = f", without {' and '.join(self.unknown)}" if self.unknown else ""
        return f"training needs about {human_bytes(self.total)} ({listed}{without}); {human_bytes(self.available)} are free"

    @cached_property
    def advice(self) -> str | None:
        """What to change where it will not fit, or None where it will."""
        if self.total <= self.available:
            return None
        tried = []
        for option, total in self.savers.items():
            tried.append(f"{option} ({human_bytes(total)})")
            if total <= self.available:
                return f"training may not fit; it should with {' and '.join(tried)}"
        hint = f" even with {' and '.join(tried)}" if tried else ""
        return f"training may not fit{hint}; take a larger device, a shallower checkpoint, or --lora"

    def check(self) -> None:
        """Raises UsageError where not even what stays from step to step fits an empty device."""
        stays = self.total - self.parts.get("activations", 0) - self.parts.get("encoders", 0)
        if stays > self.capacity and all(total > self.capacity for total in self.savers.values()):
            raise UsageError(
                f"the device has {human_bytes(self.capacity)} in all, and {self.summary}",
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
        shards = processes if chosen.shard else 1
        taught = 0 if teacher is None else teacher.num_parameters * _teacher_bytes(chosen)
        found = {
            "weights": checkpoint.num_parameters * _FP32 // shards,
            "gradients": kept["gradients"] // shards,
            "optimizer": kept["optimizer"] // shards,
            "average": kept["ema"] // shards,
            "buckets": kept["gradients"] if processes > 1 and shards == 1 else 0,
            "part gradients": kept["gradients"] * _parts_at_once(checkpoint, chosen, device, processes),
            "teacher": taught // shards,
            "collected blocks": _collected(checkpoint) if shards > 1 else 0,
            "activations": _activations(checkpoint, chosen, processes, blocks),
            "encoders": encoders,
        }
        return {name: size for name, size in found.items() if size}

    free, capacity = _device_memory(device)
    savers: dict[str, int] = {}
    chosen = settings
    share = -(-settings.batch_size // processes)
    ways: list[tuple[str, dict[str, Any]]] = [
        (f"--accumulate {share}", {"accumulate": share}),
        ("--gradient-checkpointing", {"gradient_checkpointing": True}),
        ("--optimizer came8bit", {"optimizer": "came8bit"}),
    ]
    if processes > 1:
        ways.append(("--shard", {"shard": True}))
    for option, changes in ways:
        if any(getattr(chosen, name) != value for name, value in changes.items()):
            chosen = replace(chosen, **changes)
            savers[option] = sum(parts(chosen).values())
    if encoders:
        savers["data made by sanactl encode"] = sum(parts(chosen, encoders=0).values())
    return MemoryPlan(parts(settings), free, capacity, savers, tuple(unknown))


def _parts_at_once(
    checkpoint: Checkpoint, settings: FinetuneSettings, device: torch.device, processes: int
) -> int:
    """How many parts of a batch have gradients of their own at one time (`sanactl.training.gradient`)."""
    import torch

    from sanactl.training.parts import at_once, cut, side_by_side

    if settings.shard or not side_by_side(
        device, checkpoint.num_parameters, settings.batch_size // processes
    ):
        return 0
    _, height, width = _latent_shape(checkpoint, settings)
    tokens = height * width // int(checkpoint.config.get("patch_size") or 1) ** 2
    parts = cut(-(-settings.batch_size // processes), tokens, settings.accumulate)
    return min(at_once(len(parts), settings.accumulate), torch.get_num_threads() + 1)


def _collected(checkpoint: Checkpoint) -> int:
    """Bytes of whole blocks that FSDP2 holds: two, and one's gradients, each with the buffer that it is sent through."""
    first = sum(
        math.prod(ref.shape)
        for name, ref in checkpoint.tensors.items()
        if name.startswith("transformer_blocks.0.")
    )
    return 6 * first * _FP32


def _latent_shape(checkpoint: Checkpoint, settings: FinetuneSettings) -> tuple[int, int, int]:
    from sanactl.model.conditioning import pixels_per_latent

    factor = pixels_per_latent(checkpoint)
    return int(checkpoint.config["in_channels"]), settings.height // factor, settings.width // factor


def _activations(
    checkpoint: Checkpoint, settings: FinetuneSettings, processes: int, trained: list[int] | None
) -> int:
    share = -(-settings.batch_size // processes)
    return activation_bytes(
        checkpoint.config,
        _latent_shape(checkpoint, settings),
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
    from sanactl.checkpoint.components import cached_component
    from sanactl.errors import InputError
    from sanactl.files.safetensors import read_header

    total, unknown = 0, []
    for part, name in (("text_encoder", "the text encoder"), ("vae", "the autoencoder")):
        entry = checkpoint.components.get(part)
        try:
            folder = cached_component(checkpoint, entry) if entry else None
            files = sorted(folder.glob("*.safetensors")) if folder else []
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
