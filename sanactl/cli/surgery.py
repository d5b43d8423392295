"""What the surgery commands share: show a plan, or write it and tell what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sanactl.cli.render import show_checkpoints, show_plan
from sanactl.cli.run import Invocation, checkpoint_record
from sanactl.cli.streams import note
from sanactl.errors import UsageError
from sanactl.io.checkpoint import Checkpoint, open_checkpoint
from sanactl.io.ckpt_plan import Plan
from sanactl.io.writer import write_checkpoint

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
    pipeline: bool = False,
    copy: bool = False,
) -> None:
    """Writes each plan under its natural name (or `output`, for a single one) and emits its checkpoint record."""
    if output is not None and len(plans) > 1:
        raise UsageError("-o names one output, but several depths were asked for", hint="leave -o away")
    run = Invocation(command, seed=seed)
    run.uses(parent)
    for plan, _ in plans:
        for warning in plan.warnings:
            note(f"warning: {warning}")
    if dry_run:
        run.emit(
            [{"kind": "checkpoint", "path": str(output or name), "planned": True, **plan.summary().as_dict()}
             for plan, name in plans],
            show=lambda records: show_plan(records),
        )  # fmt: skip
        return
    made = []
    for plan, name in plans:
        target = output or Path(name)
        with run.watching() as progress:
            if pipeline:
                from sanactl.io.ckpt_pipeline import write_pipeline

                write_pipeline(plan, target, force, copy=copy, shard_size=shard_size, progress=progress)
            else:
                write_checkpoint(plan, target, force, shard_size=shard_size, progress=progress)
        child = open_checkpoint(target, native=True)
        record = checkpoint_record(child)
        if verify:
            from sanactl.stages.verify import largest_difference

            difference = largest_difference(parent, child)
            record["largest_difference"] = difference
            note(
                "parent and child agree exactly on random latents"
                if difference == 0
                else f"largest difference between parent and child on random latents: {difference:.3g}"
            )
        made.append(record)
    run.emit(made, show=show_checkpoints)
    run.finish(*[(Path(r["path"]), "checkpoint") for r in made], digest=made[-1]["digest"])
