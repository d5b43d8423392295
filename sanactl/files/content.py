"""Hashes of files' contents, computed in threads and remembered for large files.

The hash of a span of at most `LEAF` bytes is its sha256. The hash of a longer span is the sha256 of the hashes of its
parts of `LEAF` bytes. So any number of threads can read the parts in any order; hashlib releases the interpreter's lock
meanwhile. A large file's hashes are remembered (`sanactl.files.hash_cache`), and each of its bytes is read once.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from sanactl.errors import InputError
from sanactl.files.hash_cache import recall, remember
from sanactl.files.progress import SILENT, Progress
from sanactl.files.threads import in_threads, processors

__all__ = [
    "HASH",
    "LEAF",
    "Span",
    "files_digest",
    "joined",
    "json_digest",
    "known_hashes",
    "span_hashes",
    "zeros_hash",
]

HASH = 32  # bytes of a hash
LEAF = 1 << 20  # bytes
_REMEMBERED_FROM = 8 << 20  # bytes of spans; reading fewer takes at most ten milliseconds
_WORKERS = 8  # one core hashes 0.5 to 2 GB/s, a fast disk reads 7
_WHOLE = 16 << 20  # bytes; `files_digest` hashes a smaller file as a whole

Span = tuple[int, int]  # first byte, number of bytes


def span_hashes(
    path: Path, spans: Sequence[Span], known: Mapping[Span, bytes] | None = None, progress: Progress = SILENT
) -> dict[Span, bytes]:
    """The hash of each span of a file.

    Args:
        path: the file.
        spans: what to hash; spans lie inside the file and may be adjacent.
        known: hashes that are known already; their spans are not read.
        progress: gets the number of bytes as they are read.

    Raises:
        InputError: the file cannot be read, or changed while it was read.
    """
    ordered = sorted(set(spans))
    what = _table(ordered)
    try:
        with open(path, "rb", buffering=0) as file:
            before = os.fstat(file.fileno())
            kept = recall(before, what) if _is_large(ordered) else None
            if kept is not None and len(kept) == HASH * len(ordered):
                return {span: kept[i * HASH : (i + 1) * HASH] for i, span in enumerate(ordered)}
            hashes = dict(known or {})
            wanted = [span for span in ordered if span not in hashes]
            hashes |= _read(file.fileno(), path, wanted, progress)
            after = os.fstat(file.fileno())
    except OSError as error:
        raise InputError(f"cannot read {path}: {os.strerror(error.errno or 0)}") from error
    if _state(before) != _state(after):
        raise InputError(f"{path} changed while it was being read", hint="run the command again")
    if _is_large(ordered):
        remember(after, what, b"".join(hashes[span] for span in ordered))
    return {span: hashes[span] for span in ordered}


def known_hashes(path: Path, spans: Sequence[Span]) -> bool:
    """Whether `span_hashes` has the answer without reading much."""
    ordered = sorted(set(spans))
    if not _is_large(ordered):
        return True
    try:
        return recall(os.stat(path), _table(ordered)) is not None
    except OSError:
        return False


def json_digest(value: Any) -> str:
    """sha256 of a value as JSON with sorted keys, 64 hexadecimal digits; values that JSON lacks count as their `str`."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def files_digest(files: Sequence[Path], extra: str = "") -> str:
    """sha256 ("sha256:...") of `extra` and, in order, of each file's size and bytes (for large files, the hash).

    Raises:
        InputError: a file cannot be read.
    """
    digest = hashlib.sha256(extra.encode())
    for path in files:
        try:
            size = os.stat(path).st_size
            digest.update(f"\0{size}\0".encode())
            digest.update(path.read_bytes() if size <= _WHOLE else span_hashes(path, [(0, size)])[0, size])
        except OSError as error:
            raise InputError(f"cannot read {path}: {os.strerror(error.errno or 0)}") from error
    return "sha256:" + digest.hexdigest()


@lru_cache(maxsize=64)
def zeros_hash(count: int) -> bytes:
    """The hash of a span of `count` zero bytes."""
    zeros = bytes(min(count, LEAF))
    full = hashlib.sha256(zeros).digest()
    if count <= LEAF:
        return full
    rest = count % LEAF
    return joined([full] * (count // LEAF) + ([hashlib.sha256(zeros[:rest]).digest()] if rest else []))


def joined(leaves: Sequence[bytes]) -> bytes:
    """The hash of a span from the hashes of its parts."""
    return hashlib.sha256(b"".join(leaves)).digest()


def _is_large(spans: Sequence[Span]) -> bool:
    return sum(count for _, count in spans) >= _REMEMBERED_FROM


def _table(spans: Sequence[Span]) -> bytes:
    return hashlib.sha256(repr((LEAF, spans)).encode()).digest()


def _state(status: os.stat_result) -> tuple[int, ...]:
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _read(descriptor: int, path: Path, spans: Sequence[Span], progress: Progress) -> dict[Span, bytes]:
    """The hashes of spans, read by threads a few megabytes at a time."""
    hashes: dict[Span, bytes] = {}
    leaves = {span: [b""] * -(-span[1] // LEAF) for span in spans if span[1] > LEAF}
    lock, local = threading.Lock(), threading.local()

    def fetch(start: int, count: int) -> memoryview:
        if not hasattr(local, "buffer"):
            local.buffer = memoryview(bytearray(LEAF))
        done = 0
        while done < count:
            part = os.preadv(descriptor, [local.buffer[done:count]], start + done)
            if not part:
                raise InputError(
                    f"{path} ended early, at byte {start + done:,}", hint="it changed while it was read"
                )
            done += part
        with lock:
            progress.advance(count)
        return local.buffer[:count]

    def leaf(span: Span, number: int) -> None:
        start = number * LEAF
        data = fetch(span[0] + start, min(LEAF, span[1] - start))
        leaves[span][number] = hashlib.sha256(data).digest()

    def group(members: Sequence[Span]) -> None:
        first = members[0][0]
        data = fetch(first, max(start + count for start, count in members) - first)
        for span in members:
            hashes[span] = hashlib.sha256(data[span[0] - first : span[0] - first + span[1]]).digest()

    def jobs() -> Iterator[Callable[[], None]]:
        for members in _groups(spans):
            if members[0] in leaves:
                yield from (partial(leaf, members[0], number) for number in range(len(leaves[members[0]])))
            else:
                yield partial(group, members)

    total = sum(count for _, count in spans)
    in_threads(jobs(), max(1, min(_WORKERS, processors(), total // LEAF)))
    return hashes | {span: joined(parts) for span, parts in leaves.items()}


def _groups(spans: Sequence[Span]) -> Iterator[list[Span]]:
    """Each long span alone; short ones in the order of their bytes, in groups that are read at once."""
    members: list[Span] = []
    for span in spans:
        start, count = span
        if members and (count > LEAF or start + count - members[0][0] > LEAF):
            yield members
            members = []
        if count > LEAF:
            yield [span]
        else:
            members.append(span)
    if members:
        yield members
