"""Checking the outputs of a training run before anything is loaded, because an error at the end would lose the run."""

from __future__ import annotations

import os
from pathlib import Path

from sanactl.checkpoint.target import target_kind
from sanactl.errors import OutputExistsError, SanactlError, UsageError
from sanactl.files.atomic import check_target
from sanactl.training.figures import figures_path, is_figures
from sanactl.training.state import state_folder
from sanactl.training.tracking import check_tracker, tracker_path

__all__ = ["check_beside", "check_outputs"]


def check_outputs(target: Path, *, force: bool = False, tracker: str | None = None) -> None:
    """Refuses what could not be written at the end of `finetune`. Whether the target is there already is not asked.

    Raises:
        UsageError: a name that is no `.st` file's; a tracker that is not there.
        OutputExistsError: a file of another kind lies where the figures go, and `force` is false.
        SanactlError: no such folder, no permission, a read-only disk.
    """
    try:
        kind = target_kind(target)
    except UsageError:
        kind = ""
    if kind != "file" or target.is_dir():
        what = "one file, and not a folder" if kind in ("file", "folder") else f"no {target.suffix} files"
        raise UsageError(
            f"finetune writes {what} ({target})",
            hint="name a .st file; sanactl convert makes other formats of it",
        )
    check_beside(target, force=force, tracker=tracker)


def check_beside(target: Path, *, force: bool = False, tracker: str | None = None) -> None:
    """Refuses what a training could not write at its end: its target, its figures, its state, its tracker's files.

    Whether the target is there already is not asked.

    Raises:
        UsageError: a tracker that is not there.
        OutputExistsError: a file of another kind lies where the figures go, and `force` is false.
        SanactlError: no such folder, no permission, a read-only disk.
    """
    check_target(target, force=True)
    figures = figures_path(target)
    _check_own_file(figures)
    if not force and not is_figures(figures):
        raise OutputExistsError(
            f"{figures}, where the loss of every step goes, is there already and holds something else",
            hint="name another output with -o, or replace it with --force",
        )
    folder = state_folder(target)
    if os.path.lexists(folder) and not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        raise SanactlError(
            f"{folder}, where the state of the run is kept, is no folder to write in", hint="remove it"
        )
    if tracker is not None:
        check_tracker(tracker)
        logs = tracker_path(tracker, target)
        if logs is not None and os.path.lexists(logs) and not (logs.is_dir() and os.access(logs, os.W_OK)):
            raise SanactlError(f"{logs}, where {tracker}'s files go, is no folder to write in")


def _check_own_file(path: Path) -> None:
    """Raises SanactlError where a file that is there could not be written over."""
    if not os.path.lexists(path):
        return
    if not path.is_file():
        raise SanactlError(
            f"cannot write {path}: it is not a regular file", hint="name another output with -o"
        )
    if not os.access(path, os.W_OK):
        raise SanactlError(f"cannot write {path}: no permission", hint="name another output with -o")
