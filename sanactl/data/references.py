"""What `--data` names: which of the layouts in docs/data.md, and which files. Nothing is guessed from split words."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sanactl.data.encoded import is_encoded
from sanactl.data.listing import list_folder, suffix_of
from sanactl.data.metadata import METADATA, has_file_names
from sanactl.errors import InputError
from sanactl.files.images import SUFFIXES

__all__ = ["Reference", "expand_braces", "find_reference"]

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}")
# Files that hold many examples each: their suffix, and the layout that a folder of them is.
SHARDS = {".tar": "tars", ".parquet": "parquet", ".arrow": "arrow"}
_PACKED = (".zip", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")
_FILES = (*SHARDS, ".jsonl", ".csv")
MOST_FILES = 1_000_000
_HINT = "give a folder, .tar or .parquet files, a dataset id or a .jsonl of records"
_NO_CAPTIONS = "put a metadata.jsonl beside the images, with their file_name and text on each line"


@dataclass(frozen=True)
class Reference:
    """What `--data` names.

    Attributes:
        name: as it was typed.
        layout: "images", "tars", "parquet", "arrow", "saved", "geneval", "records", "addresses" or "hub".
        root: the folder that the files are in; of "saved" and "geneval" it is all that counts.
        files: of the layout, as paths below the root (of "images" the metadata files); addresses as they are.
        images: of "images", the image files.
        left_out: lines about files that are not used.
    """

    name: str
    layout: str
    root: Path = Path()
    files: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


def find_reference(name: str) -> Reference:
    """Decides what `--data` names, by what is there: a folder's layout by its files, a file's by its suffix.

    Raises:
        InputError: it is nothing that training data can be, or could be two things.
    """
    if os.path.isdir(name):
        return _folder(name, Path(name))
    if os.path.isfile(name):
        return _files(name, [name])
    if os.path.exists(name):
        raise InputError(f"{name}: is no regular file, and no folder", hint=_HINT)
    is_file = suffix_of(name) in _FILES
    if HUB_ID.fullmatch(name) and not is_file:
        return Reference(name, "hub")
    files = _matching(name)
    if not files:
        is_file = is_file or glob.has_magic(name) or "{" in name
        what = "no such file" if is_file else "there is no such folder"
        raise InputError(f"{name}: {what}", hint=_HINT)
    return _files(name, files)


def _folder(name: str, root: Path) -> Reference:
    if is_encoded(root):
        raise InputError(f"{name}: is encoded already", hint="finetune takes it as it is")
    if (root / "dataset_info.json").is_file() and (root / "state.json").is_file():
        return Reference(name, "saved", root)
    if (root / "dataset_dict.json").is_file():
        raise InputError(f"{name}: a saved dataset of several splits", hint=f"name one: {_split(root)}")
    if _is_geneval(root):
        return Reference(name, "geneval", root)
    files = list_folder(root)
    images = tuple(f for f in files if suffix_of(f) in SUFFIXES)
    metadata = tuple(f for f in files if os.path.basename(f) in METADATA)
    others = {s: [f for f in files if suffix_of(f) == s and f not in metadata] for s in SHARDS}
    others = {suffix: found for suffix, found in others.items() if found}
    if images and metadata:
        left = [_listed(found) for found in others.values()]
        return Reference(name, "images", root, metadata, images, tuple(left))
    if (images and others) or len(others) > 1:
        one = (images[0] if images else None, *(found[0] for found in others.values()))
        raise InputError(
            f"{name}: holds {' and '.join(o for o in one if o)}: which kind is the data?",
            hint=f"name the files, as in {os.path.join(name, '*' + next(iter(others)))}, or take the others away",
        )
    if images:
        raise InputError(f"{name}: has images but no captions", hint=_NO_CAPTIONS)
    if (
        not others
        and metadata
        and suffix_of(metadata[0]) == ".parquet"
        and not has_file_names(root / metadata[0])
    ):
        others = {".parquet": list(metadata)}
    for suffix, found in others.items():
        return Reference(name, SHARDS[suffix], root, tuple(found))
    if metadata:
        raise InputError(
            f"{name}: {metadata[0]} names images, but none is there", hint="put the images beside it"
        )
    packed = next((f for f in files if suffix_of(f) in _PACKED), None)
    if packed:
        raise InputError(f"{name}: {packed} is compressed", hint="unpack it first")
    raise InputError(
        f"{name}: no images, .tar or .parquet files in it" if files else f"{name}: is empty", hint=_HINT
    )


def _files(name: str, paths: Sequence[str]) -> Reference:
    """What a file, or the files of a pattern, are by their suffix."""
    suffixes = {suffix_of(path): path for path in reversed(paths)}
    if len(suffixes) > 1:
        raise InputError(
            f"{name}: names {' and '.join(sorted(suffixes.values()))}", hint="name files of one kind"
        )
    ((suffix, first),) = suffixes.items()
    if "://" in first:
        if suffix != ".tar":
            raise InputError(f"{name}: is no address of .tar files", hint=_HINT)
        return Reference(name, "addresses", files=tuple(paths))
    absolute = [os.path.abspath(path) for path in paths]
    root = Path(os.path.commonpath([os.path.dirname(path) for path in absolute]))
    below = tuple(os.path.relpath(path, root) for path in absolute)
    is_metadata = os.path.basename(first) in METADATA
    if is_metadata and (suffix != ".parquet" or has_file_names(Path(first))):
        images = tuple(f for f in list_folder(root) if suffix_of(f) in SUFFIXES)
        return Reference(name, "images", root, below, images)
    if suffix == ".jsonl":
        return Reference(name, "records", root, below)
    if suffix in SHARDS:
        return Reference(name, SHARDS[suffix], root, below)
    if suffix in _PACKED:
        raise InputError(f"{name}: is compressed", hint="unpack it first")
    raise InputError(f"{name}: is no folder of images", hint=_HINT)


def _is_geneval(root: Path) -> bool:
    """Whether a folder has GenEval's layout, `00000/metadata.jsonl` and `00000/samples/`, and no metadata of its own."""
    from sanactl.records.geneval_folder import is_geneval_folder

    if any((root / name).exists() for name in METADATA) or not is_geneval_folder(root):
        return False
    return any((folder / "samples").is_dir() for folder in root.iterdir() if folder.name.isdigit())


def _split(root: Path) -> str:
    """A split of a saved `DatasetDict`: `train` if there is one."""
    folders = sorted(f for f in root.iterdir() if (f / "state.json").is_file())
    return str(next((f for f in folders if f.name == "train"), folders[0] if folders else root / "train"))


def _listed(files: Sequence[str]) -> str:
    more = f" and {len(files) - 1:,} more {suffix_of(files[0])} files" if len(files) > 1 else ""
    return f"{files[0]}{more}, since metadata tell of images"


def expand_braces(pattern: str) -> list[str]:
    """`s-{00..10}.tar` and `{a,b}.tar` as a shell expands them; leading zeros are kept.

    Raises:
        InputError: more than a million names.
    """
    names = [pattern]
    while any(_RANGE.search(name) for name in names):
        expanded: list[str] = []
        for name in names:
            expanded += _expand_first(name, pattern)
            if len(expanded) > MOST_FILES:
                raise InputError(f"{pattern}: names more than {MOST_FILES:,} files")
        names = expanded
    return names


def _expand_first(name: str, pattern: str) -> list[str]:
    match = _RANGE.search(name)
    if match is None:
        return [name]
    if match[3] is not None:
        parts = match[3].split(",")
    else:
        if max(len(match[1]), len(match[2])) > 18 or abs(int(match[2]) - int(match[1])) >= MOST_FILES:
            raise InputError(f"{pattern}: names more than {MOST_FILES:,} files")
        first, last = int(match[1]), int(match[2])
        padded = match[1].startswith("0") or match[2].startswith("0")
        width = max(len(match[1]), len(match[2])) if padded else 0
        step = 1 if first <= last else -1
        parts = [f"{n:0{width}d}" for n in range(first, last + step, step)]
    return [name[: match.start()] + part + name[match.end() :] for part in parts]


def _matching(pattern: str) -> list[str]:
    """The files that a name or a pattern stands for, in order; addresses are passed on as they are.

    The leading part of it that is a folder is taken as it is written, whatever signs are in its name.

    Raises:
        InputError: one that braces name is missing.
    """
    folder, rest = _literal_part(pattern)
    found: list[str] = []
    for name in expand_braces(rest):
        path = os.path.join(folder, name) if folder else name
        if "://" in path or os.path.isfile(path):
            found.append(path)
        elif glob.has_magic(name):
            whole = os.path.join(glob.escape(folder), name) if folder else name
            found += sorted(f for f in glob.glob(whole, recursive=True) if os.path.isfile(f))
        elif "{" in rest:
            raise InputError(f"{path}: no such file", hint=f"it is one of {pattern}")
    return found


def _literal_part(pattern: str) -> tuple[str, str]:
    """The longest leading part that is a folder, and what is left."""
    if "://" in pattern:
        return "", pattern
    folder, rest = os.path.split(pattern)
    while folder and folder != os.path.dirname(folder) and not os.path.isdir(folder):
        folder, part = os.path.split(folder)
        rest = os.path.join(part, rest)
    return folder, rest
