"""What the surgery commands share: show a plan, or write it and tell what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sanactl.cli.render import show_checkpoints, show_plan
from sanactl.cli.run import Invocation, checkpoint_record
from sanactl.cli.streams import note
from sanactl.io.checkpoint import Checkpoint, open_checkpoint
from sanactl.io.ckpt_pipeline import write_pipeline
from sanactl.io.records import Record
from sanactl.io.writer import Plan, target_kind, write_checkpoints

__all__ = ["execute"]


def execute(
    command: str,
    parent: Checkpoint,
    plans: Sequence[tuple[Plan, str]],
    *,
    output: Path | None,
    force: bool,
    dry_run: bool,
    shard_size: str,
    seed: int | None = None,
    verify: bool = False,
    pipeline: tuple[bool] | None = None,
) -> None:
    """Writes each plan under its natural name (or `output`, for a single one) and emits its checkpoint record.

    Args:
        verify: run parent and child, and tell how far they are apart.
        pipeline: not None to write a whole pipeline folder; whether to copy the companions into it.
    """
    assert output is None or len(plans) == 1, output
    run = Invocation(command, seed=seed)
    run.uses(parent)
    jobs = [(plan, output or Path(name)) for plan, name in plans]
    for warning in dict.fromkeys(warning for plan, _ in jobs for warning in plan.warnings):
        note(f"warning: {warning}")
    if dry_run:
        planned = [
            {"kind": "checkpoint", "path": str(target), "planned": True, **plan.summary().as_dict()}
            for plan, target in jobs
        ]
        run.emit(planned, show=show_plan)
        return
    form = {"shard_size": shard_size, "pipeline": pipeline}
    # One of several depths that is there from an earlier run is left as it is; the others are written in one reading.
    left = []
    for plan, target in jobs:
        _set_key(run, parent, plan, target, form)
        if not run.made_before(target, force=force):
            left.append((plan, target))
    with run.watching() as progress:
        if pipeline is not None:
            for plan, target in left:
                write_pipeline(
                    plan, target, force, copy=pipeline[0], shard_size=shard_size, progress=progress
                )
        elif left:
            write_checkpoints(left, force, shard_size=shard_size, progress=progress)
    records = []
    for plan, target in jobs:
        child = open_checkpoint(target, native=True)
        record = checkpoint_record(child)
        if verify:
            record |= _verified(parent, child)
        records.append(record)
        _set_key(run, parent, plan, target, form)
        run.run.outputs.clear()
        run.finish((target, "checkpoint", record["digest"]))
    run.emit(records, show=show_checkpoints)


def _set_key(run: Invocation, parent: Checkpoint, plan: Plan, target: Path, form: dict[str, Any]) -> None:
    """What the output is a function of: the parent, what is done to it, and the form in which it is written."""
    done = plan.lineage[-1] if plan.lineage else None
    kind = target_kind(target)
    run.key(digest=parent.digest, done=done, kind=kind, form=form if kind == "folder" else None)


def _verified(parent: Checkpoint, child: Checkpoint) -> Record:
    """How far parent and child are apart, as a field for the child's record."""
    from sanactl.stages.verify import largest_difference

    difference = largest_difference(parent, child)
    note(
        "parent and child agree exactly on random latents"
        if difference == 0
        else f"largest difference between parent and child on random latents: {difference:.3g}"
    )
    return {"largest_difference": difference}
