"""A folder for samples: opened for one list of prompts, or for the same list again; renewed with --force."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sanactl.errors import OutputExistsError
from sanactl.files.append import try_lock
from sanactl.files.atomic import atomic_path
from sanactl.files.folder_lock import FolderLock
from sanactl.model.processes import broadcast, open_processes
from sanactl.model.sampling_settings import MAX_FIXED_BATCH
from sanactl.records.records import Record
from sanactl.sampling.dataset_files import BLOCKED, LISTING, listed_parts, remove_dataset_files
from sanactl.sampling.difference import difference

if TYPE_CHECKING:
    import torch

    from sanactl.checkpoint.open import Checkpoint
    from sanactl.model.conditioning import SamplingSettings

__all__ = [
    "MARK",
    "folder_settings",
    "given_components",
    "mark_of",
    "open_folder",
    "opened_folder",
    "prompts_digest",
    "renew_folder",
    "settled",
    "shared_folder",
]

SETTINGS = "settings.json"
# The keyword of the PNG text chunk.
MARK = "sanactl"
_MAX_SETTINGS = 2**20  # bytes


def prompts_digest(prompts: Iterable[Record]) -> str:
    """A fingerprint of a list of prompts: their texts, in order."""
    digest = hashlib.sha256()
    for prompt in prompts:
        digest.update(json.dumps(prompt["prompt"]).encode() + b"\n")
    return "sha256:" + digest.hexdigest()


def folder_settings(
    checkpoint: Checkpoint,
    settings: SamplingSettings,
    seed: int,
    dtype: torch.dtype,
    prompts: Sequence[Record],
    guard: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The contents of a folder's settings.json: everything that decides its images, and the list of prompts.

    Args:
        guard: what decided which prompts are in the list, if a guard did.
    """
    return {
        "digest": checkpoint.digest,
        "seed": seed,
        "dtype": str(dtype),
        **settings.identity(),
        **given_components(checkpoint),
        "prompts": {"count": len(prompts), "digest": prompts_digest(prompts)},
        **({} if guard is None else {"guard": dict(guard)}),
    }


def given_components(checkpoint: Checkpoint) -> dict[str, str]:
    """The user's `--components`, if any, because other components give other images."""
    return {} if checkpoint.given is None else {"components": checkpoint.given}


@contextlib.contextmanager
def shared_folder(
    folder: Path | None,
    stem: str,
    wanted: dict[str, Any],
    settings: SamplingSettings,
    *,
    force: bool,
    shared: bool = False,
) -> Iterator[tuple[Path, SamplingSettings]]:
    """The folder that the first process opens, and the settings with its fixed batch (`settled`), on every process.

    Arguments and errors as in `opened_folder`.
    """
    with contextlib.ExitStack() as stack:
        chosen = folder or Path(stem)
        if open_processes().is_main_process:
            any_batch = settings.fixed_batch is None
            opened = opened_folder(folder, stem, wanted, force=force, any_batch=any_batch, shared=shared)
            chosen = stack.enter_context(opened)
        chosen = broadcast(chosen)
        yield chosen, settled(chosen, settings, wanted)


@contextlib.contextmanager
def opened_folder(
    folder: Path | None,
    stem: str,
    wanted: dict[str, Any],
    *,
    force: bool,
    any_batch: bool = False,
    shared: bool = False,
) -> Iterator[Path]:
    """Open a folder for the images of this run. If the run fails before its first image, a new folder is removed.

    Until the context ends, no other run opens the folder.

    Args:
        folder: the user's folder, or None for the first of STEM, STEM-2 and so on that does not exist, is empty, or has
            images of these settings and prompts.
        wanted: see `folder_settings`.
        force: the folder may contain other images of sanactl; `renew_folder` removes them before the first new image.
        any_batch: see `open_folder`.
        shared: other runs may open the folder at the same time if theirs is shared, too; each draws other images.

    Raises:
        OutputExistsError: see `open_folder`.
        InputError: another run draws images into the folder.
    """
    number, made = 1, False
    chosen = folder or Path(stem)
    while True:
        try:
            made = open_folder(chosen, wanted, force=force, any_batch=any_batch)
            break
        except OutputExistsError:
            if folder is not None or force:
                raise
            number += 1
            chosen = Path(f"{stem}-{number}")
    try:
        with FolderLock(chosen, chosen, shared=shared):
            # Before it was locked, a run that failed may have removed it.
            open_folder(chosen, wanted, force=force, any_batch=any_batch)
            yield chosen
    except BaseException:
        if made:
            _remove_unused(chosen, shared=shared)
        raise


def _remove_unused(folder: Path, *, shared: bool) -> None:
    """Remove a folder without images, unless another run has opened it. Where there are no locks, a shared one stays."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            alone = try_lock(descriptor)
            if alone is False or (alone is None and shared):
                return
            if [p.name for p in folder.iterdir()] == [SETTINGS]:
                (folder / SETTINGS).unlink()
                folder.rmdir()
        finally:
            os.close(descriptor)


def open_folder(folder: Path, wanted: dict[str, Any], *, force: bool, any_batch: bool = False) -> bool:
    """Make the folder, or check that an existing one has images of the same settings and the same list of prompts.

    Args:
        folder: the folder; missing parents are made, too.
        wanted: see `folder_settings`.
        force: the folder may contain other images of sanactl. They stay until `renew_folder` is called.
        any_batch: an existing folder may have another fixed batch, which the run then has to take (`settled`).

    Returns:
        whether the folder was made.

    Raises:
        OutputExistsError: the folder has other contents; or images of other settings or prompts, without `force`; or files
            that sanactl did not write at the paths of new images.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputExistsError(f"{folder} is a file", hint="name a folder with -o")
    there = _settings_of(folder)
    if there is not None:
        if force:
            _removable(folder, there)
        elif not _alike(there, wanted, any_batch):
            raise OutputExistsError(
                f"{folder} holds images of {difference(there, wanted, any_batch)}",
                hint="give another folder with -o, or --force to replace them",
            )
        return False
    if (folder / SETTINGS).exists() and any(folder.glob("[0-9]*/samples")):
        raise OutputExistsError(
            f"{folder / SETTINGS} is damaged, so it cannot be known what the images in {folder} are",
            hint="bring the file back from a copy, or name another folder with -o",
        )
    if folder.exists() and not all(_is_begun(inside) for inside in folder.iterdir()):
        if _settings_of(folder) is not None:  # another run has just written them
            return open_folder(folder, wanted, force=force, any_batch=any_batch)
        kept = "; sanactl does not remove files of other programs" if force else ""
        raise OutputExistsError(
            f"{folder} has other contents than samples{kept}",
            hint="name another folder with -o",
        )
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        _write_settings(folder, wanted, force=False)
    except OutputExistsError:
        # Another process opened the folder meanwhile; for the same images this is not a problem.
        if not _alike(_settings_of(folder), wanted, any_batch):
            raise
        return False
    return made


def _is_begun(path: Path) -> bool:
    """Whether a file is of another run that makes the folder at this moment, or that was killed while it did."""
    return path.name.startswith(f".{SETTINGS}.")


def settled(folder: Path, settings: SamplingSettings, wanted: Mapping[str, Any]) -> SamplingSettings:
    """The settings with a fixed batch: their own; if they name none, that of the opened folder, else that of `wanted`.

    So a folder's images are all of one kind, though a run for few images would have chosen a smaller batch.
    """
    if settings.fixed_batch is not None:
        return settings
    there = _settings_of(folder)
    source = there if _alike(there, wanted, any_batch=True) else wanted
    assert source is not None
    return replace(settings, fixed_batch=source["fixed_batch"])


def _alike(there: Mapping[str, Any] | None, wanted: Mapping[str, Any], any_batch: bool) -> bool:
    """Whether a folder's settings are the wanted ones, with `any_batch` apart from their fixed batch."""
    if there is None or not any_batch:
        return there == wanted
    size = there.get("fixed_batch")
    return (
        type(size) is int
        and 0 < size <= MAX_FIXED_BATCH
        and {**there, "fixed_batch": wanted["fixed_batch"]} == wanted
    )


def renew_folder(folder: Path, wanted: dict[str, Any]) -> None:
    """Remove only the files that sanactl wrote into an opened folder before, and write the settings `wanted`.

    Raises:
        OutputExistsError: see `open_folder`.
    """
    there = _settings_of(folder)
    images, prompts = _removable(folder, there) if there else ([], [])
    for image in images:
        image.unlink()
    for place in prompts:
        (place / "metadata.jsonl").unlink(missing_ok=True)
        for empty in (place / "samples", place):
            with contextlib.suppress(OSError):  # it has files of other programs, which stay
                empty.rmdir()
    for path in (folder / LISTING, folder / BLOCKED, *listed_parts(folder)):
        path.unlink(missing_ok=True)
    remove_dataset_files(folder)
    _write_settings(folder, wanted, force=True)


def _write_settings(folder: Path, wanted: dict[str, Any], *, force: bool) -> None:
    with atomic_path(folder / SETTINGS, force=force) as temporary:
        temporary.write_text(json.dumps(wanted, indent=1, ensure_ascii=False), encoding="utf-8")


def _settings_of(folder: Path) -> dict[str, Any] | None:
    """The settings of a folder that `sample` fills; None for any other folder."""
    path = folder / SETTINGS
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_SETTINGS:
            return None
        found = json.loads(path.read_text(encoding="utf-8"))
        return found if type(found["prompts"]["count"]) is int and "digest" in found else None
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def _removable(folder: Path, there: dict[str, Any]) -> tuple[list[Path], list[Path]]:
    """The images of an earlier run, and their prompts' folders.

    Raises:
        OutputExistsError: a prompt folder or an image is not by sanactl; a score of the folder would include it.
    """
    images: list[Path] = []
    prompts = sorted(p for p in folder.iterdir() if p.name.isdecimal() and p.is_dir())
    for place in prompts:
        number = int(place.name)
        if place.name != f"{number:05d}" or number >= there["prompts"]["count"]:
            raise _not_ours(place)
        for image in (p for p in place.glob("samples/*.png") if p.stem.isdecimal()):
            if mark_of(image) is None:
                raise _not_ours(image)
            images.append(image)
    return images, prompts


def _not_ours(path: Path) -> OutputExistsError:
    return OutputExistsError(
        f"{path} was not made by sanactl, so sanactl does not remove it",
        hint="move it away, or name another folder with -o",
    )


def mark_of(path: Path) -> dict[str, Any] | None:
    """sanactl's metadata in a PNG, or None if sanactl did not draw it. Only the chunks before the pixels are read."""
    from PIL import Image

    if not path.is_file():
        return None
    try:
        with Image.open(path, formats=("PNG",)) as image:
            found = json.loads(image.info[MARK])
    except (
        OSError,
        SyntaxError,
        ValueError,
        KeyError,
        TypeError,
        RecursionError,
        Image.DecompressionBombError,
    ):
        return None
    return found if isinstance(found, dict) else None
