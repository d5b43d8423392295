"""Resolving the text after `--data`: a folder, files, addresses, or a name that does not exist on this machine."""

from __future__ import annotations

import glob
import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from sanactl.data.listing import list_folder, suffix_of
from sanactl.data.metadata import METADATA
from sanactl.errors import InputError
from sanactl.files.images import SUFFIXES

__all__ = ["HINT", "Reference", "expand_braces", "find_reference"]

MOST_FILES = 1_000_000
HINT = "give a folder, .tar or .parquet files, a dataset id, or a .csv or .jsonl that names images"
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}")


@dataclass(frozen=True)
class Reference:
    """What `--data` names, before anything in it has been read.

    Attributes:
        name: as it was typed.
        kind: "folder"; "files" (one, or those of a pattern); "addresses" (`https://...`); "name" for anything else.
        root: the folder, or the one that all files are in.
        named: the files as paths below the root, or the addresses.
    """

    name: str
    kind: Literal["folder", "files", "addresses", "name"]
    root: Path = Path()
    named: tuple[str, ...] = ()

    @cached_property
    def files(self) -> tuple[str, ...]:
        """The files that it stands for, as paths below the root; of a folder all in it and below."""
        if self.kind == "folder":
            return tuple(list_folder(self.root))
        return self.named if self.kind == "files" else ()

    @cached_property
    def images(self) -> tuple[str, ...]:
        """The image files in the folder, or in the folder that the files are in."""
        files = self.files if self.kind == "folder" else list_folder(self.root)
        return tuple(f for f in files if suffix_of(f) in SUFFIXES)

    @cached_property
    def metadata(self) -> tuple[str, ...]:
        """Those of the files that are called as metadata files are."""
        return tuple(f for f in self.files if os.path.basename(f) in METADATA)

    @property
    def suffix(self) -> str:
        """How what was typed ends, in small letters: ".tar"; "" for a folder."""
        if self.kind == "folder":
            return ""
        return suffix_of(self.named[0] if self.named else self.name)

    def ending(self, *suffixes: str) -> tuple[str, ...]:
        """Those of the files that end so, metadata files left out."""
        return tuple(f for f in self.files if suffix_of(f) in suffixes and f not in self.metadata)


def find_reference(name: str) -> Reference:
    """Looks up what a name stands for. What exists here is a file or folder, whatever signs are in its name.

    Raises:
        InputError: it is a pipe or a device, a pattern of several kinds of files, or one of the files that braces name
            is missing.
    """
    if os.path.isdir(name):
        return Reference(name, "folder", Path(name))
    if os.path.exists(name) and not os.path.isfile(name):
        raise InputError(f"{name}: is neither a regular file nor a folder", hint=HINT)
    paths = [name] if os.path.isfile(name) else _matching(name)
    suffixes = {suffix_of(path): path for path in reversed(paths)}
    if len(suffixes) > 1:
        raise InputError(
            f"{name}: names {' and '.join(sorted(suffixes.values()))}", hint="name files of one kind"
        )
    if not paths:
        return Reference(name, "name")
    if "://" in paths[0]:
        return Reference(name, "addresses", named=tuple(paths))
    absolute = [os.path.abspath(path) for path in paths]
    root = Path(os.path.commonpath([os.path.dirname(path) for path in absolute]))
    return Reference(name, "files", root, tuple(os.path.relpath(path, root) for path in absolute))


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
