"""A step that reads nothing from the device, so that a CUDA graph can hold it.

Whether the gradients are finite is a number on the device; where they are not, nothing is changed and the step is counted
as skipped. On GPUs, Triton kernels work on all parameters at once (`triton_step`). What they do not take, and all on
other devices, is done by `update`, one parameter after the other, with the old values kept aside.
"""

from __future__ import annotations

import os
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from sanactl.errors import UsageError
from sanactl.optim.moment import Moment
from sanactl.optim.plan import Plan, is_capturing
from sanactl.optim.plan_fields import Item
from sanactl.optim.reference import Hyper
from sanactl.optim.rounding import seed_at, seed_base
from sanactl.optim.sharded import is_sharded, local, part_of
from sanactl.optim.state import IDENTITY, Entry, Group, as_matrix, is_matrix, moment_of
from sanactl.optim.update import LARGEST_GRAD_NORM, Sums, check_layout, refuse, sums_of, update

__all__ = ["MaskedSteps", "hyper_of", "kernels_for", "seed_base_of"]

State = dict[str, Tensor]
SECOND = ("exp_avg_sq_row", "exp_avg_sq_col", "exp_avg_res_row", "exp_avg_res_col")


class MaskedSteps:
    """The masked steps of one optimizer, with what is kept on its devices between them."""

    def __init__(self) -> None:
        self._devices: dict[torch.device, _Device] = {}

    def take(self, work: list[Entry], states: list[State], groups: list[Group], *, check: bool) -> None:
        """One step.

        Args:
            work: parameters with a gradient.
            states: theirs, complete; changed in place.
            groups: the optimizer's.
            check: find out at the end whether the gradients were finite, which waits for their sums alone.

        Raises:
            TrainingError: with `check`, a gradient is not finite. Then nothing was changed.
            UsageError: a gradient is sparse.
        """
        for entry in work:
            check_layout(entry)
        places: dict[torch.device, list[int]] = {}
        for i, entry in enumerate(work):
            places.setdefault(entry.p.device, []).append(i)
        steps = []
        for device, members in places.items():
            if device not in self._devices:
                self._devices[device] = _Device(device)
            step = self._devices[device]
            step.begin([work[i] for i in members], [states[i] for i in members], groups)
            steps.append(step)
        if len(steps) > 1:  # all devices or none
            every = torch.stack([step.ok.to(steps[0].ok.device) for step in steps]).amin(0)
            for step in steps:
                step.ok.copy_(every)
        answers = [step.ask() for step in steps] if check else []
        for step in steps:
            step.finish()
        for step, answer in zip(steps, answers, strict=False):
            step.refuse(answer)

    def skipped(self) -> int:
        """The steps that changed nothing because a gradient was not finite. It waits for the devices."""
        return max((int(step.skipped.item()) for step in self._devices.values()), default=0)


class _Device:
    """The steps on one device.

    Attributes:
        ok: fp32 [1]: whether the gradients of this step are finite.
        skipped: fp32 [1]: a count of steps.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.ok, self.skipped = torch.ones(1, device=device), torch.zeros(1, device=device)
        self._key: list[Any] = []
        self._plan: Plan | None = None
        self._captured: list[Plan] = []  # earlier plans that CUDA graphs still use
        self._kernels: ModuleType | None = None
        self._planned: list[int] = []  # indices into the work: those in the plan, and the others
        self._rest: list[int] = []
        self._bases: list[int | None] = []

    def begin(self, work: list[Entry], states: list[State], groups: list[Group]) -> None:
        """Sum the squared gradients and set `ok`."""
        self._work, self._states, self._groups = work, states, groups
        if is_capturing(self.device) and any(_is_on_cpu(group["lr"]) for group in groups):
            raise UsageError(
                "a CUDA graph is being captured, and the learning rate is a tensor on the CPU",
                hint=f"make it on {self.device}, or give a number",
            )
        gradients = [local(entry.p.grad) for entry in work if entry.p.grad is not None]
        key = _key(work, gradients, states)
        if key != self._key:
            if is_capturing(self.device):
                raise UsageError(
                    "the parameters, or which of them have a gradient, are not those of the last step",
                    hint="take one such step before it is captured",
                )
            self._prepare(gradients)
            self._key = _key(work, gradients, states)
        self._sums = [sums_of(work[i]) for i in self._rest]
        totals = [s.total.reshape(1) for s in self._sums]
        if self._plan is not None and self._kernels is not None:
            self._plan.set_hyper(groups)
            self._plan.point_at([gradients[i] for i in self._planned])
            self._space = self._plan.space()
            self._kernels.sum_squares(self._plan, self._space)
            self._totals = torch.cat([self._plan.totals, *totals]) if totals else self._plan.totals
            self._kernels.verdict(self._plan, self._totals, LARGEST_GRAD_NORM**2)
        else:
            self._totals = torch.cat(totals)
            self.ok.copy_((self._totals <= LARGEST_GRAD_NORM**2).all())

    def ask(self) -> tuple[Tensor, Any]:
        """Start to copy `ok` to the CPU; returns the copy, and an event after which it is there."""
        if self.device.type != "cuda":
            return self.ok, None
        answer = torch.empty(1, pin_memory=True).copy_(self.ok, non_blocking=True)
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(self.device))
        return answer, event

    def refuse(self, answer: tuple[Tensor, Any]) -> None:
        """Raise TrainingError if the gradients were not finite."""
        ok, event = answer
        if event is not None:
            event.synchronize()
        if ok.item() > 0:
            return
        order = [self._planned[k] for k in self._plan.order] if self._plan is not None else []
        found = dict(zip([*order, *self._rest], self._totals.tolist(), strict=True))
        for i, entry in enumerate(self._work):
            refuse(entry, found[i])

    def finish(self) -> None:
        """Change parameters and states."""
        self.skipped.sub_(self.ok).add_(1)
        if self._plan is not None and self._kernels is not None:
            self._kernels.change_parameters(self._plan, self._space)
            del self._space
        for i, sums in zip(self._rest, self._sums, strict=True):
            self._update(i, sums)
        del self._sums

    def _update(self, i: int, sums: Sums) -> None:
        """`update` of one parameter, undone where the step is skipped."""
        entry, state, base = self._work[i], self._states[i], self._bases[i]
        changing = [local(entry.p), *(local(t) for key, t in state.items() if key != IDENTITY)]
        before = [t.clone() for t in changing]
        state["step"] += 1
        seed = None if base is None else seed_at(state["step"].long(), base).int()
        update(entry, state, sums, hyper_of(entry.group, self.device), seed)
        for t, old in zip(changing, before, strict=True):
            t.copy_(torch.where(self.ok > 0, t, old).view_as(t))

    def _prepare(self, gradients: list[Tensor]) -> None:
        """Divide the work between kernels and torch, and plan the kernels' part."""
        for state in self._states:  # states that were loaded otherwise can have it on the CPU
            state["step"] = state["step"].to(self.device)
        if self._plan is not None and self._plan.captured:
            self._captured.append(self._plan)
        self._kernels, self._plan = kernels_for(self.device), None
        if self._kernels is not None and self.device.type == "cuda":
            self._kernels.check_driver()
        self._bases = [
            seed_base_of(e, s) if IDENTITY in s and e.group["bf16_stochastic_round"] else None
            for e, s in zip(self._work, self._states, strict=True)
        ]
        items: dict[int, Item] = {}
        if self._kernels is not None:
            for i, entry in enumerate(self._work):
                item = _item(entry, gradients[i], self._states[i], self._groups, self._bases[i])
                one_group = not items or item.part.group == next(iter(items.values())).part.group
                here = all(t.device == self.device for k, t in self._states[i].items() if k != IDENTITY)
                if here and one_group and self._kernels.can_step(item.p, item.g, item.m):
                    items[i] = item
        self._planned, self._rest = list(items), [i for i in range(len(self._work)) if i not in items]
        if items:
            self._plan = Plan(list(items.values()), len(self._groups), self.device)
            self._plan.ok = self.ok


def hyper_of(group: Group, device: torch.device | None = None) -> Hyper:
    """The settings of a step; with a device, a learning rate that is a tensor stays one, on that device."""
    lr = group["lr"]
    return Hyper(
        lr.detach().to(device, non_blocking=True) if isinstance(lr, Tensor) and device else float(lr),
        group["betas"],
        group["eps"],
        group["clip_threshold"],
        group["weight_decay"],
        bool(group["maximize"]),
    )


def kernels_for(device: torch.device) -> ModuleType | None:
    """`triton_step` for GPUs and, to count launches, for the meta device; None elsewhere and without triton."""
    if device.type not in ("cuda", "meta") or os.environ.get("SANACTL_NO_TRITON") == "1":
        return None
    return _triton_step()


@cache
def _triton_step() -> ModuleType | None:
    try:
        return import_module("sanactl.optim.triton_step")
    except ImportError:
        return None


def _item(entry: Entry, g: Tensor, state: State, groups: list[Group], base: int | None) -> Item:
    p, part = local(entry.p), part_of(entry.p)
    group = next(i for i, other in enumerate(groups) if other is entry.group)
    if is_matrix(p):
        m = moment_of(entry.p, state, entry.group)
        second = tuple(local(state[key]) for key in SECOND)
        return Item(as_matrix(p), as_matrix(g), m, second, state["step"], part, group, base)
    m = Moment(local(state["exp_avg"]))
    return Item(p, g, m, (local(state["exp_avg_sq"]),), state["step"], part, group, base)


def seed_base_of(entry: Entry, state: State) -> int:
    """What the seed for stochastic rounding has besides the step."""
    return seed_base(entry.position, part_of(entry.p).rank, int(state[IDENTITY]))


def _is_on_cpu(lr: Any) -> bool:
    return isinstance(lr, Tensor) and lr.is_cpu


def _key(work: list[Entry], gradients: list[Tensor], states: list[State]) -> list[Any]:
    """All that a plan depends on, but for the place of a gradient in memory."""
    key: list[Any] = []
    for entry, g, state in zip(work, gradients, states, strict=True):
        mine = (entry.p, *state.values())
        key.append(entry.position)
        key.append(entry.group["bf16_stochastic_round"])
        key += [t.data_ptr() for t in (map(local, mine) if is_sharded(entry.p) else mine)]
        key.append((g.dtype, g.is_contiguous(), g.data_ptr() % 16))
    return key
