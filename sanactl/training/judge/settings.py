"""The settings of a judge's training, and which of them decide the result."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from sanactl.errors import UsageError

__all__ = ["TRAINED", "TuningSettings"]

TRAINED = ("all", "projector+llm", "llm")

# What changes memory, speed or what is left on disk, and no step but for the rounding of its sums.
_FREE = ("accumulate", "gradient_checkpointing", "keep_last", "save_every", "max_bad", "held_out_share")
# What belongs to this machine or this call.
_LOCAL = ("device", "tracker", "resume")
# Raised whenever the same settings give other steps than before.
_ARITHMETIC = 2


@dataclass(frozen=True)
class TuningSettings:
    """How to train. Defaults are the paper's (appendix B), which are those of NVILA's last stage.

    Attributes:
        label: the field of the records with the truth.
        dialogue: the question; see `sanactl.judging.dialogue.open_dialogue`.
        max_pixels: larger images are made smaller; 0 for no limit.
        held_out_share: share of the prompts that is kept from training and measured.
        balance: draw right and wrong images in turn, whatever their numbers.
        epochs: images that are drawn, as a multiple of the images that there are.
        steps: updates of the weights; 0 for as many as `epochs` needs.
        batch_size: images of a step, over all processes and all parts of `accumulate`.
        accumulate: parts in which a process's share of a step goes through the model, one after the other.
        learning_rate: the largest, after the warm-up.
        schedule: of the learning rate after the warm-up, as of `FinetuneSettings`.
        warmup_ratio: share of the steps over which the learning rate rises, linearly.
        optimizer: one of `sanactl.optim.table.OPTIMIZERS`.
        clip: bound of the gradient's global norm; 0 sets none.
        weight_decay: decoupled, as in AdamW.
        train: which weights are trained, one of `TRAINED`; adapters are always the language model's.
        lora: rank of low-rank adapters; 0 trains the weights themselves.
        quantize: "4bit" for the language model under the adapters (QLoRA), or "".
        merge: add the adapters to the weights at the end; else a folder of adapters is written.
        gradient_checkpointing: compute each layer's activations again in the backward pass.
        precision: "no" (fp32) or "bf16" (autocast; trained weights and optimizer stay fp32).
        seed: of the order and of new adapters.
        max_bad: damaged images that are skipped.
        save_every, keep_last, device, tracker, resume: as of `FinetuneSettings`.
    """

    label: str = "correct"
    dialogue: str = "paper"
    max_pixels: int = 0
    held_out_share: float = 0.1
    balance: bool = True
    epochs: float = 1.0
    steps: int = 0
    batch_size: int = 8
    accumulate: int = 1
    learning_rate: float = 2e-5
    schedule: str = "cosine"
    warmup_ratio: float = 0.03
    optimizer: str = "adamw"
    clip: float = 1.0
    weight_decay: float = 0.0
    train: str = "all"
    lora: int = 0
    quantize: str = ""
    merge: bool = True
    gradient_checkpointing: bool = False
    precision: str = "no"
    seed: int = 0
    max_bad: int = 0
    save_every: int = 0
    keep_last: int = 2
    device: str | None = None
    tracker: str | None = None
    resume: bool = True

    # An answer costs ln 2 where a judge knows nothing. Below that, a loss that rises tenfold is no divergence.
    harmless_loss = 1.0

    @property
    def effective_learning_rate(self) -> float:
        """The learning rate before the schedule."""
        return self.learning_rate

    @property
    def warmup(self) -> int:
        """Steps until the learning rate has its value."""
        return math.ceil(self.warmup_ratio * self.steps)

    def planned(self, images: int) -> TuningSettings:
        """These settings with the number of steps that `epochs` of so many images need."""
        return (
            self
            if self.steps
            else replace(self, steps=max(1, math.ceil(self.epochs * images / self.batch_size)))
        )

    def arguments(self) -> dict[str, Any]:
        """The settings that the result tells of."""
        return {name: value for name, value in asdict(self).items() if name not in _LOCAL}

    def deciding(self) -> dict[str, Any]:
        """The settings that decide what the steps are; the others may change at a restart."""
        chosen = {name: value for name, value in self.arguments().items() if name not in _FREE}
        return {**chosen, "arithmetic": _ARITHMETIC}

    def check(self, processes: int = 1) -> None:
        """Refuses a run that cannot be made as it is asked for.

        Raises:
            UsageError: names the option.
        """
        from importlib.util import find_spec

        from sanactl.optim.table import find_optimizer
        from sanactl.training.settings import SCHEDULES

        for name, value in asdict(self).items():
            if isinstance(value, float) and not (math.isfinite(value) and value >= 0):
                option = "lr" if name == "learning_rate" else name.replace("_", "-")
                raise UsageError(f"--{option} {value} is no number to train with")
        if self.batch_size < 1 or self.accumulate < 1 or self.steps < 0 or self.epochs <= 0:
            raise UsageError("steps, epochs, batch size and accumulated parts of a training are above 0")
        if not 0 < self.held_out_share < 1:
            raise UsageError(f"--held-out-share {self.held_out_share:g} is no share between 0 and 1")
        if self.batch_size < processes:
            raise UsageError(
                f"a batch of {self.batch_size} cannot be shared by {processes} processes",
                hint="raise --batch-size",
            )
        for option, value, allowed in (
            ("--train", self.train, TRAINED),
            ("--schedule", self.schedule, SCHEDULES),
            ("--quantize", self.quantize or "4bit", ("4bit",)),
        ):
            if value not in allowed:
                raise UsageError(f"{option} {value}: choose one of {', '.join(allowed)}")
        if self.quantize and not self.lora:
            raise UsageError(
                "--quantize trains adapters over the quantized weights, and needs --lora RANK",
                hint="--lora 64 is usual",
            )
        if self.lora and self.train != "all":
            raise UsageError("--lora and --train exclude each other")
        if not self.lora and not self.merge:
            raise UsageError("--no-merge is for --lora")
        if self.lora and find_spec("peft") is None:
            raise UsageError("--lora needs the package peft", hint="pip install 'sanactl[lora]'")
        find_optimizer(self.optimizer).check_installed("--optimizer")
