"""`merge` of what `encode --shard` wrote: one folder that the jobs shared, or one of each job."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sanactl.data.encode_plan import EncodePlan
from sanactl.data.encoded import EMPTY, INDEX, read_index
from sanactl.data.shard_folder import ShardFolder
from sanactl.errors import InputError
from sanactl.files.atomic import atomic_path
from sanactl.files.copying import copy_file

__all__ = ["join_encoded"]

_HINT = "run sanactl encode with the same options and the --shard that is missing, or without --shard"


def join_encoded(folders: Sequence[Path], target: Path) -> dict[str, Any]:
    """Completes a folder of encoded data from the files that several jobs wrote.

    Args:
        folders: of the jobs. Their files get a second name (a hard link) in `target`, or are copied there.
        target: one of them, a folder with files of the same settings, or a new folder.

    Returns:
        {"examples", "bytes", "skipped"} of the folder.

    Raises:
        InputError: a folder is of other data or settings, or a file is missing.
        OutputExistsError: the target holds something else.
    """
    indexes = [read_index(folder) for folder in folders]
    for folder, index in zip(folders, indexes, strict=True):
        if index.get("key") != indexes[0].get("key"):
            raise InputError(f"{folder} was encoded from other data or with other settings than {folders[0]}")
    plan = _plan(folders[0], indexes)
    joined = ShardFolder(target, plan)
    number = 0
    while plan.shard(number) is not None:
        holders = [
            folder for folder in (target, *folders) if ShardFolder(folder, plan).about(number) is not None
        ]
        about = ShardFolder(holders[0], plan).about(number) if holders else None
        if about is None:
            if plan.exact or number == 0:
                raise InputError(f"{joined.file(number).name} is in none of the folders", hint=_HINT)
            break
        number += 1
        if about["last"]:
            break
    if len(folders) > 1 or target != folders[0]:
        joined.begin(False)
        for name in (EMPTY, *(joined.file(n).name for n in range(number))):
            _take(name, folders, target)
    if not joined.has_empty:
        raise InputError(f"{target / EMPTY} is missing", hint=_HINT)
    joined.complete(str(indexes[0]["settings"].get("data", {}).get("name", target)), 2**31)
    whole = read_index(target)
    return {key: whole[key] for key in ("examples", "bytes", "skipped")}


def _plan(folder: Path, indexes: Sequence[dict[str, Any]]) -> EncodePlan:
    """The plan that the jobs had, from their indexes."""
    settings: dict[str, Any] = indexes[0]["settings"]
    begun = next((index for index in indexes if not index.get("complete")), None)
    rows = settings.get("rows")
    if type(rows) is not int or rows < 1:
        raise InputError(f"{folder / INDEX}: no rows in its settings", hint=_HINT)
    if begun is None:  # all of it is there already
        most: Any = sum(int(shard["read"]) for shard in indexes[0]["shards"])
        exact: Any = True
    else:
        most, exact = begun.get("most"), begun.get("exact")
    if not (most is None or type(most) is int) or not isinstance(exact, bool):
        raise InputError(f"{folder / INDEX}: does not tell how many rows there are", hint=_HINT)
    return EncodePlan(most, exact, rows, [], settings, str(indexes[0]["key"]))


def _take(name: str, folders: Sequence[Path], target: Path) -> None:
    if (target / name).exists():
        return
    source = next((folder / name for folder in folders if (folder / name).exists()), None)
    if source is not None:
        with atomic_path(target / name) as temporary:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
            copy_file(source, temporary, link=False)
