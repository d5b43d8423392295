"""Reading data with the `datasets` library: Parquet and Arrow files, saved datasets, the Hub, addresses of shards."""

from __future__ import annotations

import contextlib
import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sanactl.errors import InputError

__all__ = ["load_addresses", "load_files", "load_hub", "load_saved"]


def load_files(
    kind: str, name: str, root: Path, files: Sequence[str], identity: str, *, streaming: bool
) -> Any:
    """Parquet or Arrow files as one `datasets.Dataset`, or `IterableDataset` if it is streaming.

    Args:
        kind: "parquet" or "arrow".
        name: what the user called them, for errors.
        root, files: a folder, and the files below it. All of them: no split is read out of their names.
        identity: of their contents; prepared copies are kept under it.

    Raises:
        InputError: they cannot be read, or `datasets` cannot write its copy.
    """
    import datasets

    paths = [os.path.abspath(root / file) for file in files]
    for sign in ("::", "$"):  # of an archive, and of a variable; datasets knows no way to escape them
        if bad := next((path for path in paths if sign in path), None):
            raise InputError(
                f"{bad}: datasets cannot read files with {sign} in their path",
                hint="rename the folder or the file",
            )
    cache = Path(_cache()) / "sanactl" / identity[:16]
    with _explained(name, kind):
        # datasets takes a name for a pattern: [, * and ? in it have to be escaped.
        patterns = [glob.escape(path) for path in paths]
        return datasets.load_dataset(
            kind, data_files={"train": patterns}, split="train", streaming=streaming, cache_dir=str(cache)
        )


def load_saved(name: str, folder: Path, *, streaming: bool) -> Any:
    """What `Dataset.save_to_disk` wrote.

    Raises:
        InputError: it is damaged.
    """
    import datasets

    with _explained(name, "saved dataset"):
        data = datasets.load_from_disk(str(folder))
        return data.to_iterable_dataset(num_shards=1) if streaming else data


def load_hub(reference: str, *, streaming: bool) -> tuple[Any, str]:
    """The `train` split of a dataset on the Hub, and what it is known by.

    Streamed, it stays at the revision that the run began with.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    import datasets

    _cache()
    if not streaming:
        with _explained(reference, "dataset"):
            data = datasets.load_dataset(reference, split="train")
            return data, f"{reference} {getattr(data, '_fingerprint', '')}"
    revision = None
    with contextlib.suppress(Exception):  # a mirror without this interface: it is known by its name then
        from huggingface_hub import HfApi

        revision = HfApi().dataset_info(reference).sha
    with _explained(reference, "dataset"):
        data = datasets.load_dataset(reference, revision=revision, split="train", streaming=True)
        return data, f"{reference} {revision}"


def load_addresses(name: str, addresses: Sequence[str], *, streaming: bool) -> Any:
    """.tar files at addresses (`https://...`, `hf://...`).

    Raises:
        InputError: they cannot be read.
    """
    import datasets

    _cache()
    with _explained(name, "webdataset"):
        files = {"train": list(addresses)}
        return datasets.load_dataset("webdataset", data_files=files, split="train", streaming=streaming)


@contextlib.contextmanager
def _explained(name: str, what: str) -> Iterator[None]:
    """What datasets raises (its own, its file systems', its readers' errors) as one line that names the cause."""
    import datasets

    datasets.disable_progress_bars()
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        # "An error occurred while generating the dataset" says nothing; the error behind it does.
        cause = (
            error.__cause__ if type(error).__name__ == "DatasetGenerationError" and error.__cause__ else error
        )
        first = next(iter(str(cause).splitlines()), type(cause).__name__)
        raise InputError(f"{name}: cannot be read as a {what}: {first}") from error


def _cache() -> str:
    """The folder in which `datasets` keeps what it has prepared.

    Raises:
        InputError: it cannot be written.
    """
    import datasets

    folder = str(datasets.config.HF_DATASETS_CACHE)
    hint = "set HF_HOME (or HF_DATASETS_CACHE) to a folder that can be"
    if folder.startswith(
        "~"
    ):  # no home folder is known; as it stands this would be a folder called ~ in the current one
        raise InputError(
            f"{folder}, the cache of datasets, cannot be found: there is no home folder", hint=hint
        )
    try:
        os.makedirs(folder, exist_ok=True)
        writable = os.access(folder, os.W_OK | os.X_OK)
    except OSError:
        writable = False
    if not writable:
        raise InputError(f"{folder}, the cache of datasets, cannot be written", hint=hint)
    return folder
