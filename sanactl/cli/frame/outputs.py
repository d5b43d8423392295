"""Checking the name of an output before any work begins.

If an output cannot be written at the end, the work is lost. So a target is checked first: its folder, the permission,
the existing file, and whether its suffix is that of another format.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from sanactl.checkpoint.layouts.diffusers import SAFETENSORS
from sanactl.checkpoint.layouts.registry import LAYOUTS
from sanactl.errors import SanactlError, UsageError
from sanactl.files.atomic import check_target

__all__ = ["check_file", "check_folder", "free_names"]

_NOT_READ = (".gguf",)  # of other programs' checkpoints
_CHECKPOINTS = dict.fromkeys([*SAFETENSORS, *(s for x in LAYOUTS.values() for s in x.reads), *_NOT_READ])
# The contents that a suffix stands for. Other suffixes can be used for anything.
_PROMISES = {
    "records": (".jsonl", ".ndjson", ".json", ".txt"),
    "a page": (".html", ".htm"),
    "a checkpoint": tuple(_CHECKPOINTS),
    "a picture": (".png", ".jpg", ".jpeg", ".webp", ".svg", ".gif"),
    "a document": (".pdf", ".md", ".ipynb"),
    "a table": (".csv", ".tsv", ".parquet", ".arrow", ".xlsx"),
    "an archive": (".tar", ".gz", ".zip", ".zst", ".bz2", ".xz", ".tgz"),
}


def check_file(path: Path, what: str, *, force: bool = False) -> None:
    """Refuse a file that could not be written at the end.

    Args:
        path: the file to write.
        what: the contents, for example "records" or "a page".
        force: whether an existing file will be replaced.

    Raises:
        UsageError: the name is `-`, has the suffix of another format, or names a folder or a device.
        OutputExistsError: it exists and `force` is false.
        SanactlError: its folder is missing or cannot be written.
    """
    _check_name(path, what)
    if path.is_dir():
        raise UsageError(f"{path} is a folder", hint="name a file with -o")
    if path.exists() and not path.is_file():
        raise UsageError(
            f"{path} is not a regular file, so it cannot be replaced by one",
            hint="name a file with -o; records go to stdout in any case",
        )
    check_target(path, force)


def check_folder(path: Path, *, parents: bool = False) -> None:
    """Refuse a folder that could not be made or written at the end. The command itself checks the folder's contents.

    Args:
        path: the folder to write; it may exist.
        parents: whether missing folders above it will be made.

    Raises:
        UsageError: the name is `-`, has the suffix of a file, or names a file.
        SanactlError: the folder above is missing or not a folder, or there is no permission.
    """
    _check_name(path, "a folder")
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path} is a file", hint="name a folder with -o")
    if path.is_dir():
        _check_permission(path, path)
        return
    above = path.parent
    while parents and not above.exists() and above != above.parent:
        above = above.parent
    if not above.is_dir():
        what = "is not a folder" if above.exists() else "does not exist"
        raise SanactlError(f"cannot write {path}: {above} {what}", hint=f"mkdir -p {path.parent}")
    _check_permission(path, above)


def free_names(path: Path) -> Iterator[Path]:
    """Those of NAME-2.jsonl, NAME-3.jsonl and so on that do not exist at this moment."""
    number = 1
    while True:
        number += 1
        candidate = path.with_name(f"{path.stem}-{number}{path.suffix}")
        if not os.path.lexists(candidate):
            yield candidate


def _check_name(path: Path, what: str) -> None:
    if str(path) == "-":
        raise UsageError(
            "-o names a file or a folder; stdout has the records in any case", hint="leave -o out"
        )
    try:
        path.lstat()
    except FileNotFoundError:
        pass
    except NotADirectoryError:
        pass  # said of the folder below
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SanactlError(
            f"cannot write {str(path)[:200]}: {reason.lower()}", hint="name another with -o"
        ) from None
    promised = next((p for p, suffixes in _PROMISES.items() if path.suffix.lower() in suffixes), what)
    if promised != what:
        raise UsageError(
            f"{path}: {what if what != 'records' else 'a file of records'} is written, not {promised}",
            hint=f"name a {_PROMISES[what][0]} file" if what in _PROMISES else "name it without a suffix",
        )


def _check_permission(path: Path, folder: Path) -> None:
    if not os.access(folder, os.W_OK | os.X_OK):
        raise SanactlError(
            f"cannot write {path}: no permission to write in {folder}", hint="name another with -o"
        )
