"""From what `--data` names to a dataset: folders, shards, patterns of shards, ids of the Hub."""

from __future__ import annotations

import contextlib
import glob
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

from sanactl.errors import InputError
from sanactl.stages.data.tables import digest_of

__all__ = ["expand_braces", "load_reference"]

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}")
# Readers of `datasets` by the suffix of the files.
BUILDERS = {".tar": "webdataset", ".parquet": "parquet", ".arrow": "arrow"}
MOST_FILES = 1_000_000


def expand_braces(pattern: str) -> list[str]:
    """`s-{00..10}.tar` and `{a,b}.tar` as a shell expands them; leading zeros are kept.

    Raises:
        InputError: more than a million names.
    """
    match = _RANGE.search(pattern)
    if match is None:
        return [pattern]
    if match[3] is not None:
        parts = match[3].split(",")
    else:
        first, last = int(match[1]), int(match[2])
        if abs(last - first) >= MOST_FILES:
            raise InputError(f"{pattern}: names more than {MOST_FILES:,} files")
        width = (
            max(len(match[1]), len(match[2])) if match[1].startswith("0") or match[2].startswith("0") else 0
        )
        step = 1 if first <= last else -1
        parts = [f"{n:0{width}d}" for n in range(first, last + step, step)]
    before, after = pattern[: match.start()], pattern[match.end() :]
    return [name for part in parts for name in expand_braces(before + part + after)]


def load_reference(reference: str, *, streaming: bool = False) -> tuple[Any, str]:
    """The training split of what `--data` names.

    Args:
        reference: a folder of images with metadata.jsonl, of .tar shards or of Parquet files, one that
            `Dataset.save_to_disk` wrote; such a file or a pattern of them (`shards/{000..010}.tar`, `x/*.tar`); or the
            id of a dataset on the Hub.
        streaming: read it as it goes by (`datasets.IterableDataset`) in place of preparing it on disk.

    Returns:
        the `datasets.Dataset` or `IterableDataset`, and a fingerprint of its files or its revision.

    Raises:
        InputError: it is none of these, or cannot be read.
    """
    import datasets

    datasets.disable_progress_bars()
    path = Path(reference)
    options: dict[str, Any] = {"split": "train", "streaming": streaming}
    try:
        if path.is_dir():
            return _folder(path, reference, options)
        files = [] if HUB_ID.fullmatch(reference) and not path.exists() else _matching(reference)
        if files:
            builder = BUILDERS.get(Path(files[0]).suffix.lower())
            if builder is None or len({Path(f).suffix.lower() for f in files}) > 1:
                raise InputError(f"{reference}: is no folder of images", hint=_HINT)
            data = datasets.load_dataset(builder, data_files=files, **options)
            return data, _fingerprint(reference, [Path(f) for f in files], data)
        if not HUB_ID.fullmatch(reference):
            what = (
                "no such file" if glob.has_magic(reference) or "{" in reference else "there is no such folder"
            )
            raise InputError(f"{reference}: {what}", hint=_HINT)
        return _hub(reference, options)
    except InputError:
        raise
    except Exception as error:  # datasets raises its own and its file systems' errors; each names the fault
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"{reference}: cannot be read as a dataset: {first}") from error


_HINT = "give a folder, .tar or .parquet files, a dataset id or a .jsonl of records"


def _folder(path: Path, reference: str, options: dict[str, Any]) -> tuple[Any, str]:
    import datasets

    files = [Path(folder) / name for folder, _, names in os.walk(path) for name in names]
    files = sorted(f for f in files if not f.name.startswith("."))
    if {"state.json", "dataset_info.json"} <= {f.name for f in files if f.parent == path}:
        data = datasets.load_from_disk(str(path))
        data = data.to_iterable_dataset(num_shards=1) if options["streaming"] else data
        return data, _fingerprint(reference, files, data)
    suffixes = Counter(f.suffix.lower() for f in files if f.suffix.lower() in BUILDERS)
    if suffixes and len(suffixes) == 1:
        (suffix,) = suffixes
        named = [str(f.resolve()) for f in files if f.suffix.lower() == suffix]
        data = datasets.load_dataset(BUILDERS[suffix], data_files=named, **options)
    else:
        data = datasets.load_dataset("imagefolder", data_dir=str(path.resolve()), **options)
    return data, _fingerprint(reference, files, data)


def _matching(reference: str) -> list[str]:
    """The files that a name or a pattern stands for, in order; addresses are passed on as they are.

    Raises:
        InputError: one that braces name is missing.
    """
    found: list[str] = []
    for name in expand_braces(reference):
        if "://" in name:
            found.append(name)
        elif glob.has_magic(name):
            found += sorted(glob.glob(name, recursive=True))
        elif os.path.isfile(name):
            found.append(name)
        elif "{" in reference:
            raise InputError(f"{name}: no such file", hint=f"it is one of {reference}")
    return [f if "://" in f else os.path.abspath(f) for f in found]


def _hub(reference: str, options: dict[str, Any]) -> tuple[Any, str]:
    """A dataset of the Hub; streamed, it stays at the revision that the run began with."""
    import datasets

    if not options["streaming"]:
        data = datasets.load_dataset(reference, **options)
        return data, _fingerprint(reference, [], data)
    from huggingface_hub import HfApi

    revision = None
    with contextlib.suppress(Exception):  # a mirror without this interface: the name has to do
        revision = HfApi().dataset_info(reference).sha
    return datasets.load_dataset(reference, revision=revision, **options), f"{reference} {revision}"


def _fingerprint(reference: str, files: list[Path], data: Any) -> str:
    """Names, sizes and times of local files; of a dataset of the Hub what `datasets` knows it by."""
    lines = [reference]
    lines += [f"{f} {s.st_size} {s.st_mtime_ns}" for f in files if f.is_file() and (s := f.stat())]
    if not files:
        lines.append(str(getattr(data, "_fingerprint", "")))
    return digest_of(lines)
