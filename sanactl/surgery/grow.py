"""Depth growth: a deeper checkpoint from a trained one (section 2.2 and figure 11)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sanactl.checkpoint.config import MAX_BLOCKS
from sanactl.checkpoint.table import Checkpoint
from sanactl.checkpoint.write import Plan, PlannedTensor, Zeros
from sanactl.errors import UsageError
from sanactl.files.json_values import brief
from sanactl.surgery.blocks import child_plan, copied_block, is_output_projection, with_qk_norm
from sanactl.surgery.layout import INITS, Mixed, New, Slot, layout
from sanactl.surgery.new_blocks import SIGMA, SIGMA_DEPTHWISE, SIGMA_NOISE, Random, mixed_block, new_block

__all__ = ["INITS", "Growth", "plan_grow", "plan_qk_norm"]

QK_NORM = "rms_norm_across_heads"  # SANA-1.5's
_PARTIAL_DROP_LAST = 2  # "we drop the last two blocks in the pre-trained model", section 2.2


@dataclass(frozen=True)
class Growth:
    """The settings of depth growth.

    The initialisations (N is the number of kept blocks; figure 11 has the first three):

    - partial: the N blocks, and `to` - N new ones drawn from a normal distribution. Each new block begins as the identity.
    - cyclic: block i is a copy of block i mod N.
    - replicate: each block is followed by its copies; if `to` is not a multiple of N, the first blocks get one more copy.
    - progressive: a new block is the block before it plus noise (reference code only).
    - interpolate: a new block is a weighted mean of two kept ones (reference code only).

    Attributes:
        to: number of blocks of the result.
        init: one of `INITS`.
        drop_last: number of the parent's last blocks that are removed first. Default: 2 for partial, as in the paper,
            else 0. With 0 and `zero_init`, the result computes exactly what its parent computes.
            zero_init: set the output projections of new blocks or copies to zero, so that they are the identity. Kept blocks
            are never changed. Default: yes for partial, as in the paper, else no.
            sigma: standard deviation of partial's random weights.
            sigma_depthwise: standard deviation of partial's random depth-wise convolution, weight and bias.
            sigma_noise: standard deviation of progressive's noise.
            seed: of all random values. A random tensor depends only on the seed and its own name.
            position: where partial, progressive and interpolate put the new blocks: "end", "interleave" (spread between the
            kept blocks; the first and the last block stay in place), or a number: before that kept block.
            qk_norm: add SANA-1.5's RMS norms of queries and keys, with all weights one, to a parent without them.
    """

    to: int
    init: str = "partial"
    drop_last: int | None = None
    zero_init: bool | None = None
    sigma: float = SIGMA
    sigma_depthwise: float = SIGMA_DEPTHWISE
    sigma_noise: float = SIGMA_NOISE
    seed: int = 0
    position: str | int = "end"
    qk_norm: bool = False

    @property
    def dropped(self) -> int:
        """Number of the parent's last blocks that are removed."""
        if self.drop_last is not None:
            return self.drop_last
        return _PARTIAL_DROP_LAST if self.init == "partial" else 0

    @property
    def zeroed(self) -> bool:
        """Whether new blocks and copies begin as the identity."""
        return self.zero_init if self.zero_init is not None else self.init == "partial"

    @property
    def random(self) -> Random:
        return Random(self.seed, self.sigma, self.sigma_depthwise, self.sigma_noise)

    def as_arguments(self, blocks: int) -> dict[str, Any]:
        """The settings that decide the result, for the lineage; `blocks` is the parent's number of blocks."""
        arguments: dict[str, Any] = {
            "from": blocks,
            "to": self.to,
            "init": self.init,
            "drop_last": self.dropped,
            "zero_init": self.zeroed,
        }
        if self.position != "end":
            arguments["position"] = self.position
        if self.init == "partial":
            arguments |= {"sigma": self.sigma, "sigma_depthwise": self.sigma_depthwise}
        if self.init == "progressive":
            arguments["sigma_noise"] = self.sigma_noise
        if self.qk_norm:
            arguments["qk_norm"] = True
        return arguments


def plan_grow(checkpoint: Checkpoint, growth: Growth) -> Plan:
    """The plan of a checkpoint grown from `checkpoint`: `plan_grow(open_checkpoint("base.st"), Growth(to=60))`.

    Raises:
        UsageError: numbers are impossible, `init` is unknown or does not use a sigma that was set, or a sigma is too large
        for the weights' dtype.
    """
    init = growth.init
    if init not in INITS:
        raise UsageError(f"unknown init {brief(init)}", hint=f"choose one of {', '.join(INITS)}")
    kept = checkpoint.num_blocks - growth.dropped
    _check_numbers(checkpoint, growth.to, growth.dropped, kept)
    _check_sigmas(growth)
    blocks: list[Mapping[str, PlannedTensor]] = []
    seen: set[int] = set()  # kept blocks that are in the result already; if they come again, they are copies
    for index, slot in enumerate(layout(kept, growth.to, init, growth.position)):
        original = isinstance(slot, int) and slot not in seen
        seen |= {slot} if isinstance(slot, int) else set()
        blocks.append(_block(checkpoint, index, slot, growth.random, growth.zeroed and not original))
    config: dict[str, Any] = {}
    if growth.qk_norm:
        blocks, config = _normalised(checkpoint, blocks)
    return child_plan(
        checkpoint,
        blocks,
        command="grow",
        arguments=growth.as_arguments(checkpoint.num_blocks),
        seed=growth.seed if init in ("partial", "progressive") else None,
        config=config,
        warnings=_warnings(checkpoint, init, growth.qk_norm),
    )


def plan_qk_norm(checkpoint: Checkpoint) -> Plan:
    """The plan of a SANA-1.0 checkpoint with the QK norms of SANA-1.5 added (all weights one), at the same depth.

    The result does not compute the same as its parent. In the paper it adapts within about 1,000 steps of fine-tuning
    (appendix C).

    Raises:
        UsageError: the checkpoint has QK norms already.
    """
    blocks = [copied_block(checkpoint, index) for index in range(checkpoint.num_blocks)]
    normalised, config = _normalised(checkpoint, blocks)
    warning = (
        "queries and keys are normalised from now on: fine-tune about 1,000 steps before use (appendix C)"
    )
    return child_plan(
        checkpoint, normalised, command="grow", arguments={"qk_norm": True}, config=config, warnings=[warning]
    )


def _check_numbers(checkpoint: Checkpoint, to: int, dropped: int, kept: int) -> None:
    blocks = checkpoint.num_blocks
    if dropped < 0 or kept < 1:
        raise UsageError(
            f"cannot leave out the last {dropped} of {blocks} blocks",
            hint=f"--drop-last takes 0 to {blocks - 1}",
        )
    if to > MAX_BLOCKS:
        raise UsageError(
            f"--to {to if to < 10**15 else 'so many'} is more blocks than sanactl takes",
            hint=f"it takes at most {MAX_BLOCKS:,}; the paper's largest model has 60",
        )
    if to < blocks:
        raise UsageError(
            f"cannot grow {checkpoint.ref} from {blocks} to {to} blocks",
            hint="use sanactl prune to make it shallower",
        )
    if to == kept:
        raise UsageError(f"{checkpoint.ref} has {to} blocks already", hint="--to takes a larger number")


def _check_sigmas(growth: Growth) -> None:
    for what, value, default, drawn_by in (
        ("sigma", growth.sigma, SIGMA, "partial"),
        ("sigma_depthwise", growth.sigma_depthwise, SIGMA_DEPTHWISE, "partial"),
        ("sigma_noise", growth.sigma_noise, SIGMA_NOISE, "progressive"),
    ):
        if not (math.isfinite(value) and value >= 0):
            raise UsageError(f"{what} is {value}", hint="it takes a number of 0 or more")
        if value != default and growth.init != drawn_by:
            raise UsageError(
                f"{what} changes nothing in {growth.init} growth", hint=f"it goes with {drawn_by}"
            )


def _block(
    checkpoint: Checkpoint, index: int, slot: Slot, random: Random, zero: bool
) -> dict[str, PlannedTensor]:
    if isinstance(slot, New):
        block = new_block(checkpoint, index, random)
    elif isinstance(slot, Mixed):
        block = mixed_block(checkpoint, index, slot, random)
    else:
        block = copied_block(checkpoint, slot)
    if not zero:
        return block
    return {
        name: replace(tensor, source=Zeros()) if is_output_projection(name) else tensor
        for name, tensor in block.items()
    }


def _normalised(
    checkpoint: Checkpoint, blocks: Sequence[Mapping[str, PlannedTensor]]
) -> tuple[list[Mapping[str, PlannedTensor]], dict[str, Any]]:
    if checkpoint.config.qk_norm is not None:
        raise UsageError(
            f"{checkpoint.ref} has QK norms already ({checkpoint.config.qk_norm})",
            hint="leave out --qk-norm",
        )
    config = {"qk_norm": QK_NORM}
    return [with_qk_norm(checkpoint, block, {**checkpoint.config, **config}) for block in blocks], config


def _warnings(checkpoint: Checkpoint, init: str, qk_norm: bool) -> list[str]:
    warnings = []
    if qk_norm:
        warnings.append(
            "QK norms change what the model computes: the paper adapts within 1,000 steps (appendix C)"
        )
    elif checkpoint.config.qk_norm is None:
        warnings.append(
            f"{checkpoint.ref} does not normalise queries and keys (qk_norm is null, as in SANA-1.0): the paper adds"
            " QK norms to train deep models stably (section 2.2)"
        )
    if init in ("cyclic", "replicate"):
        warnings.append(
            f"the paper saw training diverge (NaN) after {init} growth (figure 7); partial is its choice"
        )
    return warnings
