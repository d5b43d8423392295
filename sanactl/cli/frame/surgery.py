"""What the surgery commands share: show a plan, or write it and tell what came of it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sanactl.checkpoint.layouts.registry import DIFFUSERS
from sanactl.checkpoint.open import Checkpoint, open_checkpoint
from sanactl.checkpoint.pipeline import write_pipeline
from sanactl.checkpoint.target import target_kind, target_layout
from sanactl.checkpoint.write import Plan, parse_size, write_checkpoints
from sanactl.cli.frame.render import show_checkpoints
from sanactl.cli.frame.run import Invocation, checkpoint_record
from sanactl.cli.frame.streams import note
from sanactl.cli.render_plan import show_plan
from sanactl.errors import SanactlError, UsageError
from sanactl.records.records import Record
from sanactl.surgery.describe import describe

__all__ = ["Job", "execute", "natural_name"]


@dataclass(frozen=True)
class Job:
    """A plan, the natural name of its output, and fields for the record of it."""

    plan: Plan
    name: str
    fields: Mapping[str, Any] = field(default_factory=dict)


def natural_name(stem: str, *, pipeline: bool) -> str:
    """The name of an output that the user did not name: STEM.st, or STEM-pipeline for a pipeline's folder."""
    return f"{stem}-pipeline" if pipeline else f"{stem}.st"


def execute(
    command: str,
    parent: Checkpoint,
    jobs: Sequence[Job],
    *,
    output: Path | None,
    force: bool,
    dry_run: bool,
    shard_size: str,
    pipeline: bool = False,
    copy: bool = False,
    seed: int | None = None,
    verify: bool = False,
    inputs: Sequence[Path] = (),
    notes: Sequence[str] = (),
) -> None:
    """Writes each plan under its natural name (or `output`, for a single one) and emits its checkpoint record.

    Args:
        pipeline: write a whole pipeline folder; `copy` the components into it rather than link them.
        verify: run parent and child, and tell how far they are apart.
        inputs: files besides the parent that decided the plan, for the journal.
        notes: what a person should know of the plans, told once it is clear that they can be written.

    A written checkpoint is in the journal before it is verified: cut short there, the same command only verifies.

    Raises:
        UsageError: options that do not go together, a name that cannot be written.
        OutputExistsError: an output is there already; of a dry run, too.
        SanactlError: parent and child differ where the plan keeps the function.
    """
    assert output is None or len(jobs) == 1, output
    if copy and not pipeline:
        raise UsageError("--copy goes with --pipeline")
    if verify and dry_run:
        raise UsageError(
            "--verify runs the checkpoint that is written, and --dry-run writes none", hint="leave one away"
        )
    run = Invocation(command, seed=seed)
    targets = [output or Path(job.name) for job in jobs]
    # A plan that is only shown takes no digest, for which a large parent would have to be read.
    keyed = not dry_run or any(os.path.lexists(target) for target in targets)
    if keyed:
        run.uses(parent)
    for path in inputs:
        run.uses(path)
    if pipeline and (named := next((t for t in targets if target_kind(t) != "folder"), None)):
        raise UsageError(
            f"--pipeline writes a folder, and {named} names a file", hint="leave the suffix away"
        )
    form = {"shard_size": shard_size, "pipeline": (copy,) if pipeline else None}
    # One of several depths that is there from an earlier run is left as it is; the others are written in one reading.
    left = []
    for job, target in zip(jobs, targets, strict=True):
        _check_name(command, job.plan, target)
        if keyed:
            _set_key(run, parent, job.plan, target, form)
        if not run.made_before(target, force=force):
            left.append((job.plan, target))
    parse_size(shard_size)
    for warning in dict.fromkeys(warning for job in jobs for warning in job.plan.warnings):
        note(f"warning: {warning}")
    for line in notes:
        note(line)
    if dry_run:
        planned = [
            {"kind": "checkpoint", "path": str(target), "planned": True, **describe(job.plan), **job.fields}
            for job, target in zip(jobs, targets, strict=True)
        ]
        run.emit(planned, show=show_plan)
        return
    with run.watching() as progress:
        if pipeline:
            for plan, target in left:
                write_pipeline(plan, target, force, copy=copy, shard_size=shard_size, progress=progress)
        elif left:
            write_checkpoints(left, force, shard_size=shard_size, progress=progress)
    records = []
    for job, target in zip(jobs, targets, strict=True):
        child = open_checkpoint(target, native=True)
        with run.watching() as progress:
            child.read_hashes(progress, job.plan.known_hashes())
        record = {**checkpoint_record(child), **job.fields}
        _set_key(run, parent, job.plan, target, form)
        run.run.outputs.clear()
        run.finish((target, "checkpoint", record["digest"]))
        if verify:
            record |= _verified(parent, child, job.plan)
        records.append(record)
    run.emit(records, show=show_checkpoints)


def _check_name(command: str, plan: Plan, target: Path) -> None:
    """Refuses a name that the plan cannot be written under."""
    try:
        layout = target_layout(target)
    except UsageError:
        if plan.layout != DIFFUSERS:
            raise
        raise UsageError(
            f"{command} writes no {target.suffix} ({target})", hint="name a .st file, or a folder (no suffix)"
        ) from None
    if layout != plan.layout:
        suffix = target.suffix.lower()
        raise UsageError(
            f"{command} writes no {suffix} ({target})",
            hint=f"write a .st, and sanactl convert makes a {suffix} of it",
        )


def _set_key(run: Invocation, parent: Checkpoint, plan: Plan, target: Path, form: dict[str, Any]) -> None:
    """What the output is a function of: the parent, what is done to it, and the form in which it is written."""
    done = plan.lineage[-1] if plan.lineage else None
    kind = target_kind(target)
    run.key(digest=parent.digest, done=done, kind=kind, form=form if kind == "folder" else None)


def _verified(parent: Checkpoint, child: Checkpoint, plan: Plan) -> Record:
    """How far parent and child are apart, as a field for the child's record; says whether that is as it should be."""
    from sanactl.sampling.verify import changes, largest_difference

    difference = largest_difference(parent, child)
    reasons = changes(plan.lineage[-1]["arguments"])
    if difference == 0:
        note("parent and child agree exactly on random latents")
    elif reasons:
        note(
            f"largest difference between parent and child on random latents: {difference:.3g};"
            f" a difference is expected, for {' and '.join(reasons)}"
        )
    else:
        raise SanactlError(
            f"{child.path} differs from {parent.path} by {difference:.3g} on random latents, and should not differ",
            hint="the file stays, to be looked into: do not use it, and please report this",
        )
    return {"largest_difference": difference}
