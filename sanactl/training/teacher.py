"""A teacher for recovery after pruning: the unpruned parent's velocity, and the hidden states of the blocks it kept.

The data's velocity e - x_0 is one draw of what the model has to predict, the parent's prediction close to its mean: for
the same noisy latents it says the same with less noise, which counts in a run of 100 steps. The hidden states say in
addition what each kept block has to hand on now that its neighbours are gone (FitNets, arXiv 1412.6550; for pruned
text-to-image models BK-SDM, arXiv 2305.15798, with the same two terms).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from sanactl.checkpoint.open import Checkpoint
    from sanactl.training.settings import FinetuneSettings
    from sanactl.training.trainable import Trainable

__all__ = ["Errors", "Teacher", "matching_blocks", "open_teacher"]


class Errors(NamedTuple):
    """Of each example of a batch, float32 [B].

    Attributes:
        data: squared error of the velocity e - x_0, the loss without a teacher.
        velocity: squared error of the teacher's velocity.
        features: squared distance of hidden states over the teacher's mean square, averaged over the matched blocks.
    """

    data: Tensor
    velocity: Tensor
    features: Tensor


def matching_blocks(kept: Sequence[int], teacher_blocks: int) -> list[int]:
    """For each of the student's blocks the teacher's block whose output it has to match.

    That is the last one before the next kept block: its output is what the next kept block was trained to read.

    Args:
        kept: the teacher's numbers of the student's blocks, ascending.
        teacher_blocks: how many blocks the teacher has.
    """
    return [following - 1 for following in [*kept[1:], teacher_blocks]]


class Teacher:
    """A frozen model beside the one that is trained.

    Args:
        model: the teacher's `SanaTransformer2DModel`.
        student: the one that is trained, not wrapped.
        kept: see `trace_blocks`; None compares velocities alone.
    """

    def __init__(self, model: Any, student: Any, kept: Sequence[int] | None) -> None:
        self.model, self.student = model.eval().requires_grad_(False), student
        self.matches: dict[int, int] = {}
        same_width = model.config.num_attention_heads * model.config.attention_head_dim == (
            student.config.num_attention_heads * student.config.attention_head_dim
        )
        if kept is not None and same_width:
            self.matches = dict(enumerate(matching_blocks(kept, len(model.transformer_blocks))))
        self._wanted, self._features = _Outputs(model, self.matches.values()), _Outputs(student, self.matches)

    def errors(
        self, wrapped: Any, latents: Tensor, noise: Tensor, sigma: Tensor, text: Tensor, text_mask: Tensor
    ) -> Errors:
        """What the student misses of the data and of the teacher; arguments as of `velocity_loss`.

        Args:
            wrapped: the student, or the module around it that shares gradients between processes.
        """
        from sanactl.model.flow import interpolate, predict_velocity, squared_error

        noisy, velocity = interpolate(latents, noise, sigma)
        inputs = (noisy, sigma, text, text_mask)
        with torch.no_grad(), self._wanted.here() as wanted:
            taught = predict_velocity(self.model, *inputs)
        with self._features.here() as features:
            predicted = predict_velocity(wrapped, *inputs)
        distances = [_distance(features[ours], wanted[theirs]) for ours, theirs in self.matches.items()]
        return Errors(
            squared_error(predicted, velocity),
            squared_error(predicted, taught),
            torch.stack(distances).mean(0) if distances else torch.zeros_like(sigma),
        )


def open_teacher(
    teacher: Checkpoint,
    student: Checkpoint,
    trained: Trainable,
    settings: FinetuneSettings,
    note: Callable[[str], None],
) -> Teacher:
    """The teacher on the student's device, in bf16 where the student computes in it; sharded where the student is.

    Args:
        note: takes a line for people where velocities alone can be compared.
    """
    from sanactl.model.loading import load_transformer
    from sanactl.model.sharded import load_sharded_transformer
    from sanactl.training.ancestry import Unknown, trace_blocks
    from sanactl.training.precision import keep_attention_fp32

    dtype = torch.bfloat16 if settings.precision == "bf16" else torch.float32
    load = load_sharded_transformer if settings.fsdp else load_transformer
    model = load(teacher, device=next(trained.parameters()).device, dtype=dtype)
    keep_attention_fp32(model)
    try:
        kept: list[int] | None = trace_blocks(student, teacher)
    except Unknown as why:
        kept = None
        note(f"{why}: velocities alone are compared")
    return Teacher(model, trained.model, kept)


def _distance(feature: Tensor, wanted: Tensor) -> Tensor:
    """Squared distance of hidden states [B, N, D] over the mean square of those wanted: [B].

    Over the mean square because hidden states grow from block to block, and the last would be all that counts.
    """
    wanted = wanted.float()
    square = wanted.square().flatten(1).mean(1).clamp_min(1e-12)
    return (feature.float() - wanted).square().flatten(1).mean(1) / square


class _Outputs:
    """Keeps the outputs of some of a model's blocks, by number, for the thread that asks for them.

    Several threads may run the model at once, each with its part of a batch.
    """

    def __init__(self, model: Any, blocks: Iterable[int]) -> None:
        self._asked = threading.local()
        for number in set(blocks):
            model.transformer_blocks[number].register_forward_hook(self._keeper(number))

    def _keeper(self, number: int) -> Any:
        def keep(module: Any, inputs: Any, output: Tensor) -> None:
            found = getattr(self._asked, "found", None)
            if found is not None:
                found[number] = output

        return keep

    @contextlib.contextmanager
    def here(self) -> Iterator[dict[int, Tensor]]:
        """Outputs of the forward pass within; not of the backward pass later, where checkpointing calls blocks again."""
        found: dict[int, Tensor] = {}
        self._asked.found = found
        try:
            yield found
        finally:
            self._asked.found = None
