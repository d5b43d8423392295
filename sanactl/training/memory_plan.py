"""How much memory a run of `finetune` will take, computed before it starts, and what to change where that is too much.

What stays from step to step is arithmetic on shapes (`sanactl.surgery.memory`). The rest changes within a step: during
the backward pass activations are given back while gradients are made. The real model is therefore run on fake tensors
(`sanactl.training.activations`), and what counts is the phase of a step that takes most.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sanactl.errors import UsageError
from sanactl.files.human import human_bytes
from sanactl.surgery.memory import training_memory
from sanactl.training.activations import Pass, Peak, frozen, pass_peaks
from sanactl.training.encoder_memory import NO_ENCODERS, EncoderMemory, encoder_memory

if TYPE_CHECKING:
    import torch

    from sanactl.checkpoint.open import Checkpoint
    from sanactl.training.settings import FinetuneSettings

__all__ = ["MemoryPlan", "plan_memory"]

_FP32, _BF16 = 4, 2
# bitsandbytes' update on a CPU, one parameter after the other: both moments, the gradient, two for the denominator.
COPIES_8BIT = 5
# A run is refused that needs so many times the device's whole memory: the plan is not that wrong.
_HOPELESS = 1.5


@dataclass(frozen=True)
class MemoryPlan:
    """What a run takes on one device at the peak of a step, in bytes.

    Attributes:
        parts: weights, gradients (those that are there at the peak), optimizer, average, buckets (to share gradients), part
            gradients (of the batch's parts that are computed side by side), teacher, collected blocks (of a sharded model),
            activations, encoders; none of 0.
        stays: what stays from step to step, and all gradients.
        available: free on the device now.
        capacity: of the device.
        try_savers: computes `savers`.
        unknown: what could not be counted.
        host: bytes of the machine's memory that hold the optimizer's state for the device; 0 without that.
    """

    parts: Mapping[str, int]
    stays: int
    available: int
    capacity: int
    try_savers: Callable[[], Mapping[str, int]]
    unknown: tuple[str, ...] = ()
    host: int = 0

    @property
    def total(self) -> int:
        return sum(self.parts.values())

    @cached_property
    def savers(self) -> Mapping[str, int]:
        """Options that save memory, by what the run would take with it and those before it."""
        return self.try_savers()

    @cached_property
    def summary(self) -> str:
        """One line: what is needed, for what, and what there is."""
        listed = ", ".join(f"{name} {human_bytes(size)}" for name, size in self.parts.items())
        without = f", without {' and '.join(self.unknown)}" if self.unknown else ""
        host = f", and {human_bytes(self.host)} of the machine's memory" if self.host else ""
        return (
            f"training needs about {human_bytes(self.total)} ({listed}{without}){host};"
            f" {human_bytes(self.available)} are free"
        )

    @cached_property
    def advice(self) -> str | None:
        """What to change where it will not fit, or None where it will."""
        if self.total <= self.available:
            return None
        helps, remedy = self._remedy
        return f"training may not fit; it should with {remedy}" if helps else f"training may not fit{remedy}"

    @cached_property
    def _remedy(self) -> tuple[bool, str]:
        """Whether the options that save memory are enough, and the options or other things to change."""
        tried = []
        for option, total in self.savers.items():
            tried.append(f"{option} ({human_bytes(total)})")
            if total <= self.available:
                return True, " and ".join(tried)
        hint = f" even with {' and '.join(tried)}" if tried else ""
        return False, f"{hint}; take a larger device, a shallower checkpoint, or --lora"

    def check(self) -> None:
        """Raises UsageError where it cannot fit an empty device: what stays from step to step, or by far the whole."""
        if self.stays > self.capacity and all(total > self.capacity for total in self.savers.values()):
            raise UsageError(
                f"the device has {human_bytes(self.capacity)} in all, and {self.summary}",
                hint="take a larger device, or --lora",
            )
        if self.total > _HOPELESS * self.capacity:
            helps, remedy = self._remedy
            raise UsageError(
                f"the device has {human_bytes(self.capacity)} in all, and {self.summary}",
                hint=f"it should fit with {remedy}" if helps else f"it does not fit{remedy}",
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
    found_encoders = NO_ENCODERS if encoded else encoder_memory(checkpoint, settings)
    on_host = device.type == "cuda"

    def needs(
        chosen: FinetuneSettings, encoders: EncoderMemory = found_encoders
    ) -> tuple[dict[str, int], int, int]:
        """The parts at the peak, what stays, and what the machine's memory holds."""
        shapes = _trained_shapes(checkpoint, chosen, blocks)
        kept = training_memory(shapes, chosen.optimizer, ema=bool(chosen.ema))
        offloaded = chosen.offload_optimizer and on_host
        shards = processes if chosen.fsdp else 1
        weights = checkpoint.num_parameters * _FP32 + (kept["weights"] if chosen.lora else 0)
        taught = 0 if teacher is None else teacher.num_parameters * _teacher_bytes(chosen)
        stays = {
            "weights": weights // shards,
            "optimizer": 0 if offloaded else kept["optimizer"] // shards,
            "average": kept["ema"] // shards,
            "buckets": kept["gradients"] if processes > 1 and shards == 1 else 0,
            "teacher": taught // shards,
            "collected blocks": _collected(checkpoint) if shards > 1 else 0,
        }
        beside = NO_ENCODERS if chosen.cache else encoders
        step = _at_the_peak(checkpoint, chosen, device, processes, kept, teacher, blocks, beside)
        phases = [{"encoders": beside.weights, **step}]
        if chosen.cache:
            images = -(-chosen.batch_size // processes)
            encoding = encoders.activations(images, chosen.height, chosen.width)
            phases.append({"encoders": encoders.weights, "activations": encoding})
        largest = max(phases, key=lambda phase: sum(phase.values()))
        found = {name: size for name, size in {**stays, **largest}.items() if size}
        all_gradients = sum(stays.values()) + kept["gradients"] // shards
        return found, all_gradients, kept["optimizer"] // shards if offloaded else 0

    free, capacity = _device_memory(device)
    share = -(-settings.batch_size // processes)
    steps: list[tuple[str, dict[str, Any]]] = [
        (f"--accumulate {share}", {"accumulate": share}),
        ("--gradient-checkpointing", {"gradient_checkpointing": True}),
        ("--optimizer came8bit", {"optimizer": "came8bit"}),
    ]
    if processes > 1:
        steps.append(("--fsdp", {"fsdp": True}))
    if on_host:
        steps.append(("--offload-optimizer", {"offload_optimizer": True}))

    def try_savers() -> dict[str, int]:
        savers: dict[str, int] = {}
        chosen = settings
        for option, changes in steps:
            if any(getattr(chosen, name) != value for name, value in changes.items()):
                chosen = replace(chosen, **changes)
                savers[option] = sum(needs(chosen)[0].values())
        if found_encoders.weights:
            savers["data made by sanactl encode"] = sum(needs(chosen, NO_ENCODERS)[0].values())
        return savers

    parts, stays, host = needs(settings)
    return MemoryPlan(parts, stays, free, capacity, try_savers, found_encoders.unknown, host)


def _at_the_peak(
    checkpoint: Checkpoint,
    settings: FinetuneSettings,
    device: torch.device,
    processes: int,
    kept: Mapping[str, int],
    teacher: Checkpoint | None,
    blocks: list[int] | None,
    encoders: EncoderMemory,
) -> dict[str, int]:
    """What changes within a step, in the phase that takes most: gradients, part gradients, activations."""
    import torch

    from sanactl.optim.offload import CHUNK_BYTES, CHUNKS_THERE
    from sanactl.training.parts import at_once, cut, side_by_side

    share = -(-settings.batch_size // processes)
    whole = kept["gradients"] // (processes if settings.fsdp else 1)
    shape = _latent_shape(checkpoint, settings)
    parts = min(share, settings.accumulate)
    together = 0
    if not settings.fsdp and side_by_side(
        device, checkpoint.num_parameters, settings.batch_size // processes
    ):
        tokens = shape[1] * shape[2] // int(checkpoint.config.get("patch_size") or 1) ** 2
        parts = len(cut(share, tokens, settings.accumulate))
        threads = torch.get_num_threads()
        together = min(at_once(parts, settings.accumulate), threads + 1) if threads > 1 else 1
    step = Pass(
        frozen(checkpoint.config),
        shape,
        settings.max_sequence_length,
        images=-(-share // parts),
        bf16=settings.precision == "bf16",
        checkpointing=settings.gradient_checkpointing,
        continued=parts > 1 and not together,
        blocks_only=blocks is not None,
        lora=settings.lora,
        teacher=_compared(checkpoint, teacher),
    )
    # Before the first block that is trained nothing is kept.
    peaks = list(pass_peaks(step, checkpoint.num_blocks - (min(blocks) if blocks else 0)).values())
    made = max(peak.gradients for peak in peaks)
    if made:  # of blocks that are not trained none is made
        peaks = [Peak(peak.total, round(peak.gradients * min(1, whole / made))) for peak in peaks]
    if settings.offload_optimizer and device.type == "cuda":
        peaks.append(Peak(min(kept["optimizer"], CHUNKS_THERE * CHUNK_BYTES), 0 if step.continued else whole))
    if settings.optimizer == "adamw8bit" and device.type == "cpu":
        largest = max(map(math.prod, _trained_shapes(checkpoint, settings, blocks).values()))
        peaks.append(Peak(COPIES_8BIT * largest * _FP32, 0 if step.continued else whole))
    # A part is encoded before its forward pass.
    peaks.append(Peak(encoders.activations(step.images, settings.height, settings.width), 0))
    peak = max(peaks, key=sum)
    if not together:
        gradients = whole if step.continued else peak.gradients
        return {"gradients": gradients, "activations": peak.total}
    # Each thread computes a part; others wait to be added, as gradients. All are added to those of the parameters.
    running = min(together, torch.get_num_threads())
    return {
        "gradients": whole,
        "part gradients": running * peak.gradients + (together - running) * whole,
        "activations": running * peak.total,
    }


def _compared(checkpoint: Checkpoint, teacher: Checkpoint | None) -> str | None:
    """What a teacher is compared with (`Pass.teacher`)."""
    from sanactl.training.ancestry import Unknown, trace_blocks

    if teacher is None:
        return None
    try:
        trace_blocks(checkpoint, teacher)
    except Unknown:
        return "velocity"
    return "features"


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
