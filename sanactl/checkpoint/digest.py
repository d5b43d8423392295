"""A checkpoint's digest: a hash of its config, its metadata, and each tensor's dtype, shape and bytes.

Each tensor is hashed by itself, under its diffusers name and independently of the order in the file. So the same content
has the same digest in every layout, and a tensor that was copied from a checkpoint with known hashes is not read again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sanactl.checkpoint.metadata import compact_json
from sanactl.checkpoint.spans import Stamp, TensorRef
from sanactl.errors import InputError
from sanactl.files.content import Span, known_hashes, span_hashes
from sanactl.files.progress import SILENT, Progress

__all__ = ["content_digest", "hash_tensors", "unread_bytes"]

# Keys that depend on the file's layout; and the config's key, because the config may be in config.json instead.
_OLD_KEYS = {"sanactl.companions": "sanactl.components"}  # the same key in files of older versions
_OF_THE_FORM = ("format", "config", "sanactl.dropped")


def content_digest(
    config: Mapping[str, Any],
    metadata: Mapping[str, str],
    tensors: Mapping[str, TensorRef],
    hashes: Mapping[str, bytes],
) -> str:
    """ "sha256:..." of a checkpoint's content; `hashes` come from `hash_tensors`."""
    known = {key: value for key, value in config.items() if not key.startswith("_")}
    said = {_OLD_KEYS.get(key, key): value for key, value in metadata.items() if key not in _OF_THE_FORM}
    said = dict(sorted(said.items()))  # the order of the keys depends on who wrote the file
    digest = hashlib.sha256(f"sanactl 2\n{compact_json(known)}\n{compact_json(said)}\n".encode())
    for name, ref in sorted(tensors.items()):
        digest.update(f"{name} {ref.dtype} {list(ref.shape)} {hashes[name].hex()}\n".encode())
    return "sha256:" + digest.hexdigest()


def hash_tensors(
    tensors: Mapping[str, TensorRef],
    stamps: Mapping[Path, Stamp],
    known: Mapping[str, bytes] | None = None,
    progress: Progress = SILENT,
) -> dict[str, bytes]:
    """The hash of each tensor's bytes.

    Args:
        tensors: name to place.
        stamps: each file's state when its header was read.
        known: hashes by tensor name that are known already; these tensors are not read.
        progress: gets the number of bytes as they are read.

    Raises:
        InputError: a file cannot be read, or changed since it was opened.
    """
    given = known or {}
    hashes: dict[str, bytes] = {}
    for file, names in _by_file(tensors).items():
        spans = {name: _span(tensors[name]) for name in names}
        found = span_hashes(
            file, list(spans.values()), {spans[n]: given[n] for n in names if n in given}, progress
        )
        if file in stamps and Stamp.of(os.stat(file)) != stamps[file]:
            raise InputError(f"{file} changed since it was opened", hint="run the command again")
        hashes |= {name: found[span] for name, span in spans.items()}
    return hashes


def unread_bytes(tensors: Mapping[str, TensorRef]) -> int:
    """Bytes that `hash_tensors` would read."""
    total = 0
    for file, names in _by_file(tensors).items():
        spans = [_span(tensors[name]) for name in names]
        total += 0 if known_hashes(file, spans) else sum(count for _, count in spans)
    return total


def _by_file(tensors: Mapping[str, TensorRef]) -> dict[Path, list[str]]:
    files: dict[Path, list[str]] = {}
    for name, ref in tensors.items():
        files.setdefault(ref.file, []).append(name)
    return files


def _span(ref: TensorRef) -> Span:
    return ref.offset, ref.nbytes
