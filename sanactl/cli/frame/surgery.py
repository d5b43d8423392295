"""The common part of the surgery commands: show plans, or write them and emit the checkpoints' records."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sanactl.checkpoint.layouts.diffusers import DIFFUSERS
from sanactl.checkpoint.open import Checkpoint, open_checkpoint
from sanactl.checkpoint.pipeline import write_pipeline
from sanactl.checkpoint.target import target_kind, target_layout
from sanactl.checkpoint.write import Plan, parse_size, write_checkpoints
from sanactl.cli.frame.render import show_checkpoints
from sanactl.cli.frame.run import Invocation, checkpoint_record, given_key
from sanactl.cli.frame.terminal import note
from sanactl.cli.render_plan import show_plan
from sanactl.errors import UsageError
from sanactl.files.progress import Progress
from sanactl.records.records import Record
from sanactl.surgery.describe import describe

__all__ = ["Job", "Writing", "execute"]


@dataclass(frozen=True)
class Job:
    """A plan, the default name of its output, and further fields of its record."""

    plan: Plan
    name: str
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Writing:
    """The options of the surgery commands about writing.

    Attributes:
        output: the name of a single output; None for default names.
        force: replace an existing output.
        dry_run: show the plans and write nothing.
        shard_size: largest shard of a folder ("5GB").
        pipeline: write a whole pipeline folder.
        link: in a pipeline folder, link to the components instead of copying them.
        verify: run parent and child on the same input and report the largest difference.
    """

    output: Path | None = None
    force: bool = False
    dry_run: bool = False
    shard_size: str = "5GB"
    pipeline: bool = False
    link: bool = False
    verify: bool = False

    def check(self) -> None:
        """Raise UsageError for options that exclude each other."""
        if self.link and not self.pipeline:
            raise UsageError("--link goes with --pipeline")
        if self.verify and self.dry_run:
            raise UsageError(
                "--verify runs the checkpoint that is written, and --dry-run writes none",
                hint="leave one of them out",
            )

    def form(self, kind: str) -> dict[str, Any] | None:
        """The settings, besides the plan, that decide the bytes of a target of this kind."""
        if kind != "folder":
            return None
        return {"shard_size": self.shard_size, "pipeline": (self.link,) if self.pipeline else None}


@dataclass(frozen=True)
class _Output:
    """A job, its target, and its own line in the journal."""

    job: Job
    target: Path
    run: Invocation


def execute(
    command: str,
    parent: Checkpoint,
    jobs: Sequence[Job],
    writing: Writing,
    *,
    seed: int | None = None,
    inputs: Sequence[Path] = (),
    notes: Sequence[str] = (),
) -> None:
    """Write each plan under its default name (or `writing.output`, for a single one) and emit its checkpoint record.

    Args:
        inputs: files besides the parent that decided the plan, for the journal.
        notes: lines for the user about the plans; printed after checking that they can be written.

    A written checkpoint is in the journal before it is verified. If the command is stopped then, the same command only
    verifies.

    Raises:
        UsageError: options exclude each other, or a name cannot be written.
        OutputExistsError: an output exists already; also with `--dry-run`.
        SanactlError: parent and child differ although they should compute the same.
    """
    assert writing.output is None or len(jobs) == 1, writing
    writing.check()
    run = Invocation(command, seed=seed)
    targets = [writing.output or Path(job.name) for job in jobs]
    # A plan that is only shown needs no digest; computing it would read a large parent.
    keyed = not writing.dry_run or any(os.path.lexists(target) for target in targets)
    if keyed:
        run.uses(parent)
    for path in inputs:
        run.uses(path)
    if writing.pipeline and (named := next((t for t in targets if target_kind(t) != "folder"), None)):
        raise UsageError(f"--pipeline writes a folder, and {named} names a file", hint="leave the suffix out")
    outputs = [_Output(job, target, run.part()) for job, target in zip(jobs, targets, strict=True)]
    # Outputs of an earlier run are left unchanged; the others are written together, reading the parent once.
    left = []
    for output in outputs:
        _check_name(command, output.job.plan, output.target)
        if keyed:
            _set_key(output, parent, writing)
        if not output.run.made_before(output.target, force=writing.force):
            left.append(output)
    parse_size(writing.shard_size)
    for warning in dict.fromkeys(warning for job in jobs for warning in job.plan.warnings):
        note(f"warning: {warning}")
    for line in notes:
        note(line)
    if writing.dry_run:
        run.emit([_planned(output) for output in outputs], show=show_plan)
        return
    with run.watching() as progress:
        _write(left, writing, progress)
    run.emit([_finished(output, parent, writing) for output in outputs], show=show_checkpoints)


def _planned(output: _Output) -> Record:
    """The record of a plan that is only shown."""
    job = output.job
    path = str(output.target)
    return {"kind": "checkpoint", "path": path, "planned": True, **describe(job.plan), **job.fields}


def _write(outputs: Sequence[_Output], writing: Writing, progress: Progress) -> None:
    """Write all outputs: pipelines one by one, other outputs together, reading their sources once."""
    jobs = [(output.job.plan, output.target) for output in outputs]
    size, force = writing.shard_size, writing.force
    if writing.pipeline:
        for plan, target in jobs:
            write_pipeline(plan, target, force, link=writing.link, shard_size=size, progress=progress)
    elif jobs:
        write_checkpoints(jobs, force, shard_size=size, progress=progress)


def _finished(output: _Output, parent: Checkpoint, writing: Writing) -> Record:
    """Write the journal's line of a written checkpoint, verify it if asked for, and return its record."""
    plan, run = output.job.plan, output.run
    child = open_checkpoint(output.target, native=True)
    with run.watching() as progress:
        child.read_hashes(progress, plan.known_hashes())
    record = {**checkpoint_record(child), **output.job.fields}
    run.finish((output.target, "checkpoint", record["digest"]))
    if writing.verify:
        record |= _verified(parent, child, plan)
    return record


def _check_name(command: str, plan: Plan, target: Path) -> None:
    """Refuse a name that the plan cannot be written to."""
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


def _set_key(output: _Output, parent: Checkpoint, writing: Writing) -> None:
    """Set the output's key: the parent, the change, and the form in which it is written."""
    lineage = output.job.plan.lineage
    done = lineage[-1] if lineage else None
    kind = target_kind(output.target)
    output.run.key(digest=parent.digest, done=done, kind=kind, **given_key(parent), form=writing.form(kind))


def _verified(parent: Checkpoint, child: Checkpoint, plan: Plan) -> Record:
    """The largest difference of parent and child, as a field of the child's record; a note says if it is expected."""
    from sanactl.sampling.verify import verified_difference

    difference, reasons = verified_difference(parent, child, plan.lineage[-1]["arguments"])
    if difference == 0:
        note("parent and child agree exactly on random latents")
    else:
        note(
            f"largest difference between parent and child on random latents: {difference:.3g};"
            f" a difference is expected, for {' and '.join(reasons)}"
        )
    return {"largest_difference": difference}
