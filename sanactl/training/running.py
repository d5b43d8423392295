"""What every training has around its steps: a target of its own, a state to go on from, and what is saved where it stops."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sanactl.errors import SanactlError, TrainingError
from sanactl.files.atomic import check_target
from sanactl.files.progress import SILENT, Progress
from sanactl.model.processes import agree
from sanactl.training.lock import TargetLock
from sanactl.training.stopping import StopRequest

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator

    from sanactl.training.loop import TrainingLoop
    from sanactl.training.settings import LoopSettings
    from sanactl.training.state import TrainingState
    from sanactl.training.stored import Trained

__all__ = ["claim_target", "load_state", "state_bytes", "tail_loss", "take_steps"]


def claim_target(
    target: Path,
    held: contextlib.ExitStack,
    *,
    check: Callable[[], None],
    is_result: Callable[[], bool],
    force: bool,
) -> bool:
    """Makes the target this run's alone until `held` is closed, on every process.

    Args:
        check: refuses what could not be trained or written.
        is_result: whether the target is there as the result of this very run.
        force: replace a target that is there.

    Returns:
        whether the result is there already; then there is no lock.

    Raises:
        OutputExistsError: something else is there, and `force` is false.
        InputError: another run makes the target right now.
    """

    def is_there() -> bool:
        if not force and is_result():
            return True
        check_target(target, force)
        return False

    def begin() -> bool:
        check()
        if is_there():  # stopped after its last write, before the caller's journal had its line
            return True
        held.enter_context(TargetLock(target))
        return is_there()  # an equal run was faster

    return agree(begin)


def load_state(
    state: TrainingState,
    trained: Trained,
    optimizer: torch.optim.Optimizer,
    average: Any,
    settings: LoopSettings,
    accelerator: Accelerator,
    progress: Progress,
) -> int:
    """Goes on from the newest state of an interrupted run, where `settings.resume` says so; else removes all states.

    Returns:
        the number of steps that are done.

    Raises:
        InputError: all states are damaged, or one does not fit.
    """
    first = 0
    if settings.resume:
        first = state.load(trained, optimizer, average, agree(state.find))
    for line in state.damaged:
        progress.note(f"{line}; that after step {first} is used")
    if first:
        progress.note(f"resuming at step {first} of {settings.steps}")
    # No process goes on, and removes or replaces a state, before all have read it.
    accelerator.wait_for_everyone()
    if not settings.resume and accelerator.is_main_process:
        state.clear()
    return first


def take_steps(
    loop: TrainingLoop,
    first: int,
    target: Path,
    *,
    write: Callable[[], None],
    progress: Progress,
    on_step: Callable[[dict[str, Any]], None] | None,
) -> bool:
    """Takes the steps that are left, and writes the result.

    Args:
        first: steps that are done.
        target: what the tracker calls the run by.
        write: writes the result; called on every process if the model is sharded, else on the first.
        on_step: see `TrainingLoop.run`.

    Returns:
        whether all is done; False after a SIGTERM, with the state saved.

    Raises:
        TrainingError, KeyboardInterrupt: as of `TrainingLoop.run`; the state is saved where its weights are sound.
    """
    from sanactl.training.tracking import watching

    accelerator, state = loop.accelerator, loop.state
    watcher = loop.settings.tracker if accelerator.is_main_process else None
    with StopRequest() as stop, watching(watcher, on_step, target, state.key, first) as watched:
        try:
            finished = loop.run(first, stop, progress, watched)
            if loop.saves and finished:
                write()
        except BaseException as error:
            # A second Ctrl-C ends at once, and weights in the middle of an update are not saved.
            if loop.can_save_after(error) and not stop.insisted:
                _keep(loop, error, progress if accelerator.is_main_process else SILENT)
                if loop.gradient.sharded:  # launchers kill the others soon after the first that ends
                    accelerator.wait_for_everyone()
            if isinstance(error, TrainingError) and not accelerator.is_main_process:
                raise SystemExit(error.exit_code) from error  # all processes have it, and the first says it
            raise
    if not finished and loop.saves:
        loop.save()
    if accelerator.is_main_process:
        if finished:
            state.clear()
        else:
            progress.note(
                f"terminated; the state after step {loop.done} is saved, and the same command goes on from there"
            )
    accelerator.wait_for_everyone()
    return finished


def _keep(loop: TrainingLoop, error: BaseException, progress: Progress) -> None:
    """Saves the state after an error. A failure to save is a note, since the first error matters more."""
    try:
        loop.save()
    except (OSError, SanactlError) as trouble:
        progress.note(f"the state after step {loop.done} could not be saved: {trouble}")
        return
    saved = f"the state after step {loop.done} is saved"
    if isinstance(error, KeyboardInterrupt):
        progress.keeps(saved)
    elif not isinstance(error, TrainingError):
        progress.note(f"{saved}; the same command goes on from there")


def tail_loss(loop: TrainingLoop) -> float | None:
    """The mean loss of the last tenth of the steps; None where there were none."""
    losses = [point["loss"] for point in loop.state.history]
    tail = losses[-max(1, len(losses) // 10) :]
    return sum(tail) / len(tail) if tail else None


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of optimizer state, all tensors counted."""
    import torch

    return sum(
        value.numel() * value.element_size()
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor)
    )
