"""CAME and CAME-8bit as torch optimizers.

The algorithm is in `reference.came_step`; `update` is its fast implementation, and `state` defines the optimizer state.
Only torch is needed.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim import Optimizer

from sanactl.errors import UsageError
from sanactl.optim.blockwise import Scheme, check_scheme
from sanactl.optim.masked import MaskedSteps, hyper_of, kernels_for, seed_base_of
from sanactl.optim.plan import is_capturing
from sanactl.optim.reference import Hyper
from sanactl.optim.rounding import fingerprint, seed_at
from sanactl.optim.sharded import check_sharding, local, part_of
from sanactl.optim.state import IDENTITY, Entry, empty_state, entries, keep_tensors, restore
from sanactl.optim.update import check_gradients, update

__all__ = ["CAME", "CAME8bit"]

# The state is fp32, so parameters with more bits would gain nothing.
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# Options of torch's optimizers that would change the steps; CAME does not have them.
FOREIGN = ("amsgrad", "dampening", "differentiable", "momentum", "nesterov")
OF_8BIT = ("block_size", "min_8bit_size", "blocking", "scheme")
# The option's name in older saved states.
OLD_SCHEME = "code"


class CAME(Optimizer):
    """CAME: confidence-guided adaptive memory-efficient optimization (Luo et al., 2023), fp32 state.

    Matrices (linear weights and 1x1 convolutions, read as out x in) keep factored second moments. All other
    parameters (biases, norms, 3x3 and depth-wise convolutions) keep an unfactored second moment and take no
    confidence term, as in the SANA reference. The state is fp32 for every dtype of parameter; loading keeps it bit for bit.

    Args:
        params: parameters, named parameters or parameter groups.
        lr: learning rate. CAME's early steps are long: with the default betas the first is about 11 lr.
        betas: decay of the first moment, of the squared gradient, of the instability; each in [0, 1).
        eps: added to the squared gradient and to the instability; at least 1e-30 each.
        clip_threshold: largest root mean square of the normalised gradient.
        weight_decay: decoupled weight decay.
        maximize: maximise the objective instead of minimising it.
        capturable: no step reads from the device, so that a CUDA graph can hold it, as with torch's optimizers. A step
            with a gradient that is not finite changes nothing and is counted (`skipped_steps`), where it raises otherwise.
            A learning rate that is a tensor on the parameters' device can change between replays.
        bf16_stochastic_round: round the updates of bf16 parameters up or down at random, so that small updates are
            not lost. The random numbers depend on the step and the parameter: its place, its name (if names were given),
            and its values before its first step. They are the same after a restart.

    Raises:
        UsageError: an option is out of range or belongs to another optimizer, or a parameter cannot be optimised
            (float64, complex, or sharded in another way than by rows).
            TrainingError: from `step`, if a gradient is not finite. Then nothing was changed.
    """

    # Made at the first step that needs it; a copied optimizer makes its own.
    _masked: MaskedSteps | None = None

    def __init__(
        self,
        params: Any,
        lr: float = 1e-4,
        betas: tuple[float, float, float] = (0.9, 0.999, 0.9999),
        eps: tuple[float, float] = (1e-30, 1e-16),
        clip_threshold: float = 1.0,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        capturable: bool = False,
        bf16_stochastic_round: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": _as_tuple(betas),
            "eps": _as_tuple(eps),
            "clip_threshold": clip_threshold,
            "weight_decay": weight_decay,
            "maximize": maximize,
            "capturable": capturable,
            "bf16_stochastic_round": bf16_stochastic_round,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with options of their own; the options are checked."""
        super().add_param_group(param_group)
        try:
            self._check_group(self.param_groups[-1])
        except UsageError:
            del self.param_groups[-1]
            raise

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take one step with the present gradients.

        With a gradient that is not finite, nothing changes.

        Args:
            closure: evaluates the model again and returns the loss.

        Returns:
            The closure's loss, or None.

        Raises:
            TrainingError: a gradient contains inf or NaN, or its norm is above 1e15; the message names the parameter. With
                `capturable`, the step is skipped instead.
            UsageError: a gradient is sparse, or some groups are capturable and others are not.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        work = [e for e in entries(self.param_groups) if e.p.grad is not None and e.p.numel() > 0]
        capturable = _capturable(self.param_groups)
        devices = {entry.p.device for entry in work}
        if capturable or any(kernels_for(device) is not None for device in devices):
            self._masked_step(work, check=not capturable)
            return loss
        made: dict[int, Hyper] = {}
        for entry, sums in zip(work, check_gradients(work), strict=True):
            state, group = self._ready_state(entry), entry.group
            state["step"] += 1
            seed: int | Tensor | None = None
            if IDENTITY in state and group["bf16_stochastic_round"]:
                step, base = state["step"], seed_base_of(entry, state)
                seed = seed_at(int(step), base) if step.is_cpu else seed_at(step.long(), base).int()
            if id(group) not in made:
                made[id(group)] = hyper_of(group)
            update(entry, state, sums, made[id(group)], seed)
        return loss

    @property
    def skipped_steps(self) -> int:
        """With `capturable`: the number of steps that changed nothing because a gradient was not finite.

        To read it waits for the device.
        """
        return 0 if self._masked is None else self._masked.skipped()

    @torch.compiler.disable
    def _masked_step(self, work: list[Entry], *, check: bool) -> None:
        if any(is_capturing(device) for device in {entry.p.device for entry in work}):
            if check:
                raise UsageError(
                    f"a CUDA graph is being captured, and this {type(self).__name__} reads from the device",
                    hint="give it capturable=True",
                )
            if not all(self._is_ready(entry) for entry in work):
                raise UsageError(
                    "a CUDA graph is being captured, and some parameters have no optimizer state yet",
                    hint="take one step before it is captured",
                )
        if self._masked is None:
            self._masked = MaskedSteps()
        states = [self._ready_state(entry) for entry in work]
        if work:
            self._masked.take(work, states, self.param_groups, check=check)

    def _ready_state(self, entry: Entry) -> dict[str, Tensor]:
        """The state of a parameter; before its first step, an empty one."""
        state: dict[str, Tensor] = self.state[entry.p]
        if not state:
            state.update(empty_state(entry.p, entry.group))
        if _draws(entry) and IDENTITY not in state:
            state[IDENTITY] = _identity(entry)
        return state

    def _is_ready(self, entry: Entry) -> bool:
        state = self.state.get(entry.p)
        return bool(state) and (not _draws(entry) or IDENTITY in state)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a result of `state_dict` onto the parameters' devices; all dtypes and bits are kept.

        Raises:
            InputError: the state is of another optimizer or has other shapes. Then nothing was changed.
        """
        # torch casts fp32 state to the parameter's dtype. The hook that prevents it is registered last, so that a
        # user's own hooks see plain tensors.
        hook = self.register_load_state_dict_pre_hook(keep_tensors)
        capturable = [group["capturable"] for group in self.param_groups]
        try:
            super().load_state_dict(state_dict)
        finally:
            hook.remove()
        for group, value in zip(self.param_groups, capturable, strict=True):
            group["capturable"] = value  # how steps are taken here, whoever saved the state

    def __setstate__(self, state: dict[str, Any]) -> None:
        for options in (*state["param_groups"], state.get("defaults") or {}):
            if OLD_SCHEME in options:
                options["scheme"] = options.pop(OLD_SCHEME)
        for group in state["param_groups"]:
            for key, value in (state.get("defaults") or self.defaults).items():
                group.setdefault(key, value)
        for entry in entries(state["param_groups"]):
            if state["state"].get(entry.p):
                state["state"][entry.p] = restore(entry, state["state"][entry.p])
        super().__setstate__(state)

    def _check_group(self, group: dict[str, Any]) -> None:
        lr, betas, eps = float(group["lr"]), group["betas"], group["eps"]
        if not lr >= 0:
            raise UsageError(f"lr is {lr}", hint="use 0 or more")
        if not _are_numbers(betas, 3, least=0):
            raise UsageError(
                f"betas are {betas}", hint="use three numbers in [0, 1), such as (0.9, 0.999, 0.9999)"
            )
        if not _are_numbers(eps, 2, least=1e-30):
            raise UsageError(
                f"eps is {eps}", hint="use two numbers of at least 1e-30, such as (1e-30, 1e-16)"
            )
        if not group["clip_threshold"] > 0:
            raise UsageError(
                f"clip_threshold is {group['clip_threshold']}", hint="use more than 0; 1.0 in the paper"
            )
        if not group["weight_decay"] >= 0:
            raise UsageError(f"weight_decay is {group['weight_decay']}", hint="use 0 or more")
        others = [key for key in FOREIGN if group.get(key)]
        others += [key for key in (*OF_8BIT, OLD_SCHEME) if key in group and key not in self.defaults]
        if others:
            raise UsageError(
                f"{type(self).__name__} has no option {others[0]}", hint="leave it out of the group"
            )
        for entry in entries([group]):
            if entry.p.dtype not in DTYPES:
                raise UsageError(
                    f"{entry.name} is {entry.p.dtype}", hint="CAME takes fp32, bf16 and fp16 parameters"
                )
            check_sharding(entry.p, entry.name)


class CAME8bit(CAME):
    """CAME-8bit (SANA-1.5, section 2.3): CAME whose first moment is kept in 8 bits for large matrices.

    About 1.03 bytes of state a parameter. Linear and 1x1 convolution weights of more than `min_8bit_size` values are
    8-bit; their second moments and everything else stay fp32.

    Args:
        params, lr, betas, eps, clip_threshold, weight_decay, maximize, capturable, bf16_stochastic_round: as for `CAME`.
        block_size: values that share one scale.
        min_8bit_size: matrices of at most this many values keep an fp32 first moment.
        blocking: `paper`: a block is `block_size` flattened values. `rows`: `block_size` rows, what the public SANA
            code does; for comparison.
        scheme: quantization scheme, how a block is written; see `sanactl.optim.blockwise`. `linear` is the paper's equation 1.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-4,
        betas: tuple[float, float, float] = (0.9, 0.999, 0.9999),
        eps: tuple[float, float] = (1e-30, 1e-16),
        clip_threshold: float = 1.0,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        capturable: bool = False,
        bf16_stochastic_round: bool = False,
        block_size: int = 2048,
        min_8bit_size: int = 16384,
        blocking: str = "paper",
        scheme: Scheme = "zero",
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": _as_tuple(betas),
            "eps": _as_tuple(eps),
            "clip_threshold": clip_threshold,
            "weight_decay": weight_decay,
            "maximize": maximize,
            "capturable": capturable,
            "bf16_stochastic_round": bf16_stochastic_round,
            "block_size": block_size,
            "min_8bit_size": min_8bit_size,
            "blocking": blocking,
            "scheme": scheme,
        }
        Optimizer.__init__(self, params, defaults)

    def _check_group(self, group: dict[str, Any]) -> None:
        super()._check_group(group)
        check_scheme(group["scheme"], group["block_size"])
        if group["blocking"] not in ("paper", "rows"):
            raise UsageError(f"unknown blocking {group['blocking']!r}", hint="use paper or rows")


def _capturable(groups: list[dict[str, Any]]) -> bool:
    """Whether the steps are capturable.

    Raises:
        UsageError: those of some groups only.
    """
    found = {bool(group["capturable"]) for group in groups}
    if len(found) > 1:
        raise UsageError(
            "some parameter groups are capturable and others are not",
            hint="give capturable to the optimizer, not to a group",
        )
    return found == {True}


def _draws(entry: Entry) -> bool:
    """Whether the parameter is rounded at random."""
    return bool(entry.group["bf16_stochastic_round"]) and entry.p.dtype == torch.bfloat16


def _identity(entry: Entry) -> Tensor:
    """32 bits from a parameter's name and values, equal on every process; they make its random numbers its own."""
    values = part_of(entry.p).sum(fingerprint(local(entry.p)))
    return torch.tensor((int(values) ^ zlib.crc32(entry.given.encode())) & 0xFFFFFFFF)


def _as_tuple(values: Any) -> Any:
    """The values as a tuple where they are iterable; anything else unchanged, so that `_check_group` refuses it."""
    return tuple(values) if isinstance(values, Iterable) else values


def _are_numbers(values: Any, count: int, *, least: float) -> bool:
    """Whether this is a sequence of `count` numbers in [least, 1)."""
    try:
        return len(values) == count and all(least <= value < 1 for value in values)
    except TypeError:
        return False
