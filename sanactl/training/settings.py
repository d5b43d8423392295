"""The settings of training, and which of them decide the result."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Protocol

__all__ = [
    "SCALINGS",
    "SCHEDULES",
    "FinetuneSettings",
    "LoopSettings",
    "Schedule",
    "average_decay",
    "learning_rate_factor",
]

SCHEDULES = ("constant", "cosine", "linear")
SCALINGS = ("none", "sqrt", "linear")
_REFERENCE_BATCH = 256  # images a step for which the reference code's learning rates are meant

# What changes memory, speed or what is left on disk, and no step but for the rounding of its sums.
_FREE = (
    "accumulate",
    "gradient_checkpointing",
    "keep_last",
    "offload_optimizer",
    "save_every",
    "fsdp",
    "workers",
)
# What belongs to this machine or this call, and is not part of the result's lineage either.
_LOCAL = ("device", "tracker", "resume")

# Raised whenever the same settings give other steps than before, so that older states and results are not taken for new.
_ARITHMETIC = 3


class Schedule(Protocol):
    """What the learning rate of a step depends on."""

    @property
    def steps(self) -> int: ...

    @property
    def schedule(self) -> str: ...

    @property
    def warmup(self) -> int: ...


class LoopSettings(Schedule, Protocol):
    """What the steps of any training read of its settings (`sanactl.training.loop`); see `FinetuneSettings`.

    Attributes:
        harmless_loss: a loss up to which no step counts as divergence.
    """

    @property
    def batch_size(self) -> int: ...

    @property
    def effective_learning_rate(self) -> float: ...

    @property
    def harmless_loss(self) -> float: ...

    @property
    def clip(self) -> float: ...

    @property
    def save_every(self) -> int: ...

    @property
    def tracker(self) -> str | None: ...

    @property
    def resume(self) -> bool: ...


@dataclass(frozen=True)
class FinetuneSettings:
    """How to train. Defaults are the paper's recovery step (section 2.4): the same loss, 100 steps.

    Attributes:
        steps: updates of the weights.
        batch_size: images a step, over all processes and all parts of `accumulate`.
        accumulate: parts in which a process's share of a step goes through the model, one after the other.
        learning_rate: before `scale_lr` and the schedule; see `effective_learning_rate`.
        scale_lr: "none", or by the "sqrt" or the "linear" ratio of `batch_size` to 256 (the reference's is sqrt).
        optimizer: one of `sanactl.optim.table.OPTIMIZERS`.
        scheme: quantization scheme of CAME-8bit's first moment, one of `sanactl.optim.blockwise.SCHEMES`; "" is that
            optimizer's default.
        schedule: of the learning rate after the warm-up, one of `SCHEDULES`; see `learning_rate_factor`.
        warmup: steps over which the learning rate rises to its value, linearly.
        clip: bound of the gradient's global norm; 0 sets none.
        weight_decay: share of each weight that a step takes away, times the learning rate (as in AdamW).
        text_dropout: share of the captions that are replaced by the empty prompt, 0 to 1.
        flow_shift: shift of the noise levels towards noise (`sanactl.model.flow.sample_sigmas`), more than 0.
        ema: decay of the weights' average, which is then what is written; 0 keeps none. It rises to this over the first
            steps, see `average_decay`.
        seed: of the noise, the noise levels, the dropped captions and new adapters. The data have the same one.
        height: of the images, in pixels.
        width: of the images, in pixels.
        max_sequence_length: text tokens that the model is given.
        text_padding: "trim": the texts of a part of a batch are padded to the next of a few lengths; "full": to
            `max_sequence_length`. The steps differ in rounding.
        complex_human_instruction: whether SANA's instruction stands before every caption.
        precision: "no" (fp32) or "bf16" (autocast; weights and optimizer stay fp32).
        gradient_checkpointing: compute each block's activations again in the backward pass: less memory, more time.
        fsdp: divide weights, gradients, optimizer and average among the processes (FSDP2).
        offload_optimizer: keep the optimizer's state in the machine's memory while a GPU computes gradients.
        new_blocks_only: train the blocks that `grow` added and leave the others as they are.
        lora: rank of low-rank adapters on the attention; 0 trains the weights themselves.
        teacher_weight: share of the loss that is the teacher's velocity in place of the data's, 0 to 1.
        feature_weight: weight in the loss of the kept blocks' distance to the teacher's.
        cache: examples that are encoded once before training, which then draws from these alone; 0: none.
        workers: processes that read images beside each that trains; 0: none, None: `default_workers`.
        save_every: steps from one saved state to the next; 0 saves every ten minutes.
        keep_last: how many saved states are kept.
        device: where to train ("cpu", "cuda:1"); None is the best device there is.
        tracker: where each step's figures go besides ("tensorboard", "wandb", "trackio"); None: nowhere.
        resume: continue from the state that an interrupted run with the same settings has saved.
    """

    steps: int = 100
    batch_size: int = 16
    accumulate: int = 1
    learning_rate: float = 2e-5
    scale_lr: str = "none"
    optimizer: str = "came8bit"
    scheme: str = ""
    schedule: str = "constant"
    warmup: int = 10
    clip: float = 0.1
    weight_decay: float = 0.0
    text_dropout: float = 0.1
    flow_shift: float = 3.0
    ema: float = 0.0
    seed: int = 0
    height: int = 64
    width: int = 64
    max_sequence_length: int = 300
    text_padding: str = "trim"
    complex_human_instruction: bool = True
    precision: str = "no"
    gradient_checkpointing: bool = False
    fsdp: bool = False
    offload_optimizer: bool = False
    new_blocks_only: bool = False
    lora: int = 0
    teacher_weight: float = 0.5
    feature_weight: float = 1.0
    cache: int = 0
    workers: int | None = None
    save_every: int = 0
    keep_last: int = 2
    device: str | None = None
    tracker: str | None = None
    resume: bool = True

    harmless_loss = 0.0  # of flow matching: any loss tells

    @property
    def effective_learning_rate(self) -> float:
        """The learning rate with its scaling by the batch, before the schedule."""
        share = self.batch_size / _REFERENCE_BATCH
        factor = {"none": 1.0, "sqrt": math.sqrt(share), "linear": share}[self.scale_lr]
        return self.learning_rate * factor

    def arguments(self) -> dict[str, Any]:
        """The settings that the result's lineage tells of."""
        return {name: value for name, value in asdict(self).items() if name not in _LOCAL}

    def deciding(self) -> dict[str, Any]:
        """The settings that decide what the steps are, for the journal's key; the others may change at a restart."""
        chosen = {name: value for name, value in self.arguments().items() if name not in _FREE}
        # The name it had when the first states were saved, which are still valid.
        chosen["code"] = chosen.pop("scheme")
        return {**chosen, "arithmetic": _ARITHMETIC}


def learning_rate_factor(settings: Schedule, step: int) -> float:
    """The share of the learning rate that step `step` (from 0) takes.

    Linear warm-up to 1, which the last of `warmup` steps reaches; after it constant, or cosine or linear down to 0 at
    the last step. These are the schedules of diffusers' `get_scheduler`, one step on: there the first step has a rate
    of 0, and here the last.
    """
    warmup = max(settings.warmup, 1)
    if step + 1 < warmup:
        return (step + 1) / warmup
    share = (step + 1 - warmup) / max(settings.steps - warmup, 1)
    if settings.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * share))
    return 1 - share if settings.schedule == "linear" else 1.0


def average_decay(settings: FinetuneSettings) -> float:
    """What the decay of the weights' average comes to at the last step: diffusers' `EMAModel` lets it rise to `ema`."""
    from diffusers.training_utils import EMAModel

    return float(EMAModel([], decay=settings.ema).get_decay(settings.steps))
