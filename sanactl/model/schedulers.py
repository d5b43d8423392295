"""Loading and checking a checkpoint's scheduler."""

from __future__ import annotations

import copy
from typing import Any

import torch

from sanactl.errors import InputError, UsageError
from sanactl.files.json_values import brief
from sanactl.model.guard import local_folder, read_config, reading
from sanactl.model.sampler import step_options
from sanactl.model.sprint import set_sprint_timesteps

__all__ = ["check_schedule", "load_scheduler", "prepared_scheduler"]

_MAX_TIMESTEPS = 100_000


def load_scheduler(source: str, options: dict[str, Any]) -> Any:
    """A scheduler that predicts the flow, or SANA-Sprint's.

    Raises:
        InputError: it cannot be loaded, or is not a scheduler for SANA.
    """
    from diffusers import ConfigMixin, SchedulerMixin, schedulers

    class AnyScheduler(ConfigMixin):
        config_name = "scheduler_config.json"

    folder = local_folder(source)
    if folder is not None:
        config = read_config(folder, AnyScheduler.config_name, constants=True)
    else:
        with reading(source):
            config = dict(AnyScheduler.load_config(source, **options))
    where = str(folder / AnyScheduler.config_name) if folder is not None else source
    name = config.get("_class_name")
    trained = config.get("num_train_timesteps", 1000)
    if type(trained) is not int or not 1 <= trained <= _MAX_TIMESTEPS:
        raise InputError(f"{where}: num_train_timesteps is {brief(trained)}; SANA has 1000")
    found = getattr(schedulers, name, None) if isinstance(name, str) else None
    if not (isinstance(found, type) and issubclass(found, SchedulerMixin) and issubclass(found, ConfigMixin)):
        raise InputError(f"{where}: diffusers has no scheduler {brief(name)}")
    cls: Any = found
    with reading(where):
        scheduler = cls.from_config(config)
    _check_flow(scheduler, where)
    return scheduler


def _check_flow(scheduler: Any, where: str) -> None:
    """Refuse schedulers for other kinds of models (images would be noise), and those whose noise has no seed."""
    name, config = type(scheduler).__name__, scheduler.config
    flow = config.get("prediction_type") == "flow_prediction" and config.get("use_flow_sigmas") is True
    if not (flow or name.startswith("FlowMatch") or config.get("prediction_type") == "trigflow"):
        raise InputError(
            f"{where}: {name} with prediction_type {brief(config.get('prediction_type'))} and use_flow_sigmas"
            f" {brief(config.get('use_flow_sigmas'))} does not sample SANA",
            hint="SANA predicts the flow: flow_prediction and true",
        )
    if config.get("stochastic_sampling"):
        raise InputError(
            f"{where}: stochastic_sampling adds noise that no seed decides", hint="set it to false"
        )
    fault = _schedule_fault(scheduler, 2)
    if fault:
        raise InputError(f"{where}: {fault}")


def check_schedule(scheduler: Any, steps: int) -> None:
    """Try a scheduler with this number of steps on a small tensor.

    Raises:
        UsageError: it fails, or does not need exactly one forward pass of the transformer for each step.
    """
    if fault := _schedule_fault(scheduler, steps):
        raise UsageError(f"--steps {steps}: {fault}", hint="another number of steps may do; SANA takes 20")


def _schedule_fault(scheduler: Any, steps: int) -> str | None:
    """What is wrong with a scheduler, or None."""
    name = type(scheduler).__name__
    scheduler = copy.deepcopy(scheduler)
    try:
        with reading(name):
            sprint = scheduler.config.get("prediction_type") == "trigflow"
            if sprint:
                set_sprint_timesteps(scheduler, steps, torch.device("cpu"))
            else:
                scheduler.set_timesteps(steps)
            times = scheduler.timesteps[:-1] if sprint else scheduler.timesteps
            if len(times) != steps:
                return f"{name} takes {len(times)} forward passes for {steps} steps, where one each is needed"
            latents = torch.ones(1, 1, 2, 2)
            options = step_options(scheduler, [torch.Generator().manual_seed(0)])
            for time in times:
                latents = scheduler.step(
                    torch.zeros_like(latents), time, latents, return_dict=False, **options
                )[0]
            if not bool(torch.isfinite(latents).all()):
                return f"{name} gives values that are not finite"
    except InputError as error:
        return error.message
    return None


def prepared_scheduler(scheduler: Any, *, flow_shift: float | None, sprint: bool, steps: int) -> Any:
    """A checkpoint's scheduler with another flow shift, after checking that it fits the transformer and the steps.

    Args:
        flow_shift: the new one, or None for the scheduler's own.
        sprint: whether the transformer is SANA-Sprint's.

    Raises:
        InputError: it is of the other family of models.
        UsageError: it has no flow shift, or cannot take so many steps.
    """
    name = type(scheduler).__name__
    if sprint != (scheduler.config.get("prediction_type") == "trigflow"):
        family, wanted = ("SANA-Sprint", "SCMScheduler") if sprint else ("SANA", "a flow scheduler")
        raise InputError(
            f"the checkpoint is {family}'s and its scheduler is {name}", hint=f"it needs {wanted}"
        )
    if flow_shift is not None:
        key = next((k for k in ("flow_shift", "shift") if k in scheduler.config), None)
        if key is None:
            raise UsageError(f"--flow-shift has no effect: {name} has none")
        with reading(f"--flow-shift {flow_shift}: {name}"):
            scheduler = type(scheduler).from_config(scheduler.config, **{key: flow_shift})
    check_schedule(scheduler, steps)
    return scheduler
