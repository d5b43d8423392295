"""Where a command writes: the name of an output is checked before any work begins.

Work that ends in "cannot write" is lost, so everything that can be known of a target is looked at first: its folder,
the permission, what stands there, and whether its suffix promises another format than the one that is written.
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
# What a suffix promises. A suffix that is not listed promises nothing.
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
    """Refuses a file that could not be written at the end.

    Args:
        path: the file to write.
        what: what will be written, one of "records", "a page".
        force: whether a file that is there will be replaced.

    Raises:
        UsageError: the name is `-`, promises another format, or names a folder or a device.
        OutputExistsError: it is there and `force` is false.
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
    """Refuses a folder that could not be made or written at the end. What is in it is its command's own question.

    Args:
        path: the folder to write, which may be there.
        parents: whether the folders above are made where they are missing.

    Raises:
        UsageError: the name is `-`, promises a file, or names one.
        SanactlError: the folder above is missing or is no folder; no permission.
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
    """NAME-2.jsonl, NAME-3.jsonl and so on, as far as they are free at this moment."""
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
