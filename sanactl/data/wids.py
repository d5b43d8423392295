"""`wids-meta.json`, the list of shards of SANA's data format: {"shardlist": [{"url": "00000.tar", "nsamples": 1000}]}."""

from __future__ import annotations

import json
import os
import posixpath
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sanactl.errors import InputError
from sanactl.files.regular import open_regular

__all__ = ["INDEX", "ListedShards", "read_json", "read_shard_list"]

INDEX = "wids-meta.json"
# A list of a million shards has about 100 MB.
_MAX_BYTES = 2**30


@dataclass(frozen=True)
class ListedShards:
    """The shards of a list: their paths below its folder, and the number of samples that each has."""

    names: tuple[str, ...]
    samples: tuple[int, ...]


def read_json(path: Path) -> dict[str, Any]:
    """A file's JSON object.

    Raises:
        InputError: it is missing, is larger than a gigabyte, or holds something else.
    """
    with open_regular(path, most=_MAX_BYTES) as stream:
        data = stream.read()
    try:
        found = json.loads(data)
    except RecursionError:
        raise InputError(f"{path}: not JSON that is read (nested too deep)") from None
    except ValueError as error:  # bytes that are no text are one, too
        raise InputError(f"{path}: not JSON ({error})") from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: a JSON {type(found).__name__}, not an object")
    return found


def read_shard_list(path: Path) -> ListedShards:
    """The shards that a `wids-meta.json` lists.

    Raises:
        InputError: it is not such a list; a shard is missing, comes twice, is at an address or outside of the folder.
    """
    shards = read_json(path).get("shardlist")
    if not isinstance(shards, list) or not shards:
        raise InputError(
            f"{path}: lists no shards", hint='it is {"shardlist": [{"url": "00000.tar", "nsamples": 1000}]}'
        )
    names: dict[str, int] = {}
    missing: list[str] = []
    for number, shard in enumerate(shards, 1):
        where = f"{path}, shard {number}"
        url = shard.get("url") if isinstance(shard, dict) else None
        samples = shard.get("nsamples") if isinstance(shard, dict) else None
        if not isinstance(url, str) or not url or "\0" in url:
            raise InputError(f"{where}: has no url, which is the shard's file")
        if isinstance(samples, bool) or not isinstance(samples, int) or samples < 0:
            raise InputError(f"{where}: its nsamples is {str(samples)[:40]}, not a number of samples")
        name = _below(url, path.parent, where)
        if name in names:
            raise InputError(f"{where}: {url[:80]} is listed twice")
        names[name] = samples
        if not os.path.lexists(path.parent / name):
            missing.append(name)
    if missing:
        more = f", and {len(missing) - 1:,} more" if len(missing) > 1 else ""
        raise InputError(
            f"{path}: {path.parent / missing[0]} is not there{more}",
            hint="get the missing shards, or take them off the list",
        )
    return ListedShards(tuple(names), tuple(names.values()))


def _below(url: str, folder: Path, where: str) -> str:
    """A shard's path below the list's folder.

    Raises:
        InputError: it is not there.
    """
    if "://" in url or url.startswith("pipe:"):
        raise InputError(
            f"{where}: {url[:80]} is an address",
            hint="get the shards first, or name them: --data 'https://.../{000..010}.tar'",
        )
    if not url.endswith(".tar"):
        raise InputError(f"{where}: {url[:80]} is no .tar file")
    if os.path.isabs(url):
        url = os.path.relpath(url, os.path.abspath(folder))
    name = posixpath.normpath(url)
    if name == ".." or name.startswith("../"):
        raise InputError(
            f"{where}: {url[:80]} leads out of {folder}",
            hint="write paths that are relative to the folder of the list",
        )
    return name
