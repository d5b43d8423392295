"""Features of many images: read ahead in threads, computed in batches, kept for a later run, summed as they come."""

from __future__ import annotations

import base64
import binascii
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sanactl.files.images import read_image
from sanactl.files.threads import processors
from sanactl.model.sharing import at_once, share
from sanactl.records.batches import batches
from sanactl.records.partial import Partial, image_key
from sanactl.scoring.detectors.check import ensure_checked
from sanactl.scoring.distances.moments import Moments
from sanactl.scoring.distances.networks import Network

if TYPE_CHECKING:
    import torch

__all__ = ["Collected", "Features"]

Rows = NDArray[np.float32]
Batch = list[Any]  # of records
Part = tuple[list[Batch], bool]  # batches, and whether they are of generated images
_MOST_THREADS = 16
# Batches that one of several processes gets at once. A kill loses so many of each.
_HANDED_OUT = 4


class Collected:
    """A set of images as a distance needs it: its sums, or all of its features, or both.

    Args:
        width: number of features.
        sums: whether mean and covariance are needed; they take as much memory for any number of images.
        rows: whether the features themselves are needed; 2,048 of them take 8 kB an image.
    """

    def __init__(self, width: int, *, sums: bool, rows: bool) -> None:
        self.moments = Moments(width) if sums else None
        self._rows: list[Rows] | None = [] if rows else None
        self.groups: list[int] = []

    def add(self, features: Rows, groups: Sequence[int]) -> None:
        """Adds features [N, width] of images that belong to parts `groups`."""
        self.groups += groups
        if self.moments is not None:
            self.moments.add(features, groups)
        if self._rows is not None:
            self._rows.append(features)

    @property
    def rows(self) -> Rows:
        """All features, float32 [images, width]."""
        assert self._rows is not None
        if len(self._rows) > 1:
            self._rows = [np.concatenate(self._rows)]
        return self._rows[0]


class Features:
    """Features of images by one network.

    Args:
        network: what makes them.
        batch_size: images that it gets at once.
        kept: features of an earlier run that was stopped, and a place for this run's.
        tell: called with a line for people.
    """

    def __init__(
        self, network: Network, batch_size: int, kept: Partial | None, tell: Callable[[str], None]
    ) -> None:
        self.network, self.batch_size, self.kept, self.tell = network, batch_size, kept, tell
        self.taken = 0
        self._checked = False

    def of(self, records: Iterable[dict[str, Any]], *, generated: bool) -> Iterator[tuple[Batch, Rows]]:
        """Batches of records with their features [N, width], in order. The next batch is read meanwhile.

        Args:
            records: with `path`.
            generated: see `Network.prepare`.

        Raises:
            InputError: an image cannot be read; the message names it.
        """
        if at_once() == 1:
            yield from self._ahead(batches(records, self.batch_size), generated)
            return
        # A process reads ahead within the batches that it is handed out.
        parts = ((part, generated) for part in batches(batches(records, self.batch_size), _HANDED_OUT))
        keys: dict[int, list[list[str | None]]] = {}

        def known(part: Part) -> list[Rows] | None:
            keys[id(part)] = [[self._key(r, generated) for r in batch] for batch in part[0]]
            found = [rows for some in keys[id(part)] if (rows := self._known(some)) is not None]
            return found if len(found) == len(part[0]) else None

        def keep(part: Part, found: list[Rows]) -> None:
            for some, rows in zip(keys[id(part)], found, strict=True):
                self._keep(some, rows)

        for part, found, earlier in share(parts, self.compute, known=known, keep=keep):
            keys.pop(id(part))
            self.taken += sum(map(len, part[0])) if earlier else 0
            yield from zip(part[0], found, strict=True)

    def compute(self, part: Part) -> list[Rows]:
        """The features of batches; nothing is kept."""
        return [rows for _, rows in self._ahead(iter(part[0]), part[1], keeps=False)]

    def _ahead(
        self, stream: Iterator[Batch], generated: bool, *, keeps: bool = True
    ) -> Iterator[tuple[Batch, Rows]]:
        pool = ThreadPoolExecutor(min(_MOST_THREADS, processors()), thread_name_prefix="image")
        ahead: deque[tuple[Batch, list[str | None] | None, Rows | list[Future[torch.Tensor]]]] = deque()
        try:
            for batch in stream:
                keys = [self._key(record, generated) for record in batch] if keeps else None
                known = None if keys is None else self._known(keys)
                reading = (
                    [pool.submit(self._read, r["path"], generated) for r in batch] if known is None else known
                )
                ahead.append((batch, keys, reading))
                if len(ahead) > 1:
                    yield self._finished(*ahead.popleft())
            while ahead:
                yield self._finished(*ahead.popleft())
        finally:
            pool.shutdown(cancel_futures=True)

    def _read(self, path: str, generated: bool) -> torch.Tensor:
        return self.network.prepare(read_image(Path(path)), Path(path), generated=generated)

    def _finished(
        self, batch: Batch, keys: list[str | None] | None, found: Rows | list[Future[torch.Tensor]]
    ) -> tuple[Batch, Rows]:
        if isinstance(found, np.ndarray):
            self.taken += len(batch)
            return batch, found
        import torch

        inputs = torch.stack([future.result() for future in found])
        if not self._checked:
            ensure_checked(self.network, self.tell)
            self._checked = True
        features = self.network.features(inputs)
        if keys is not None:
            self._keep(keys, features)
        return batch, features

    def _keep(self, keys: Sequence[str | None], features: Rows) -> None:
        if self.kept is not None:
            texts = [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in features]
            self.kept.put((key, {"features": text}) for key, text in zip(keys, texts, strict=True))

    def _key(self, record: Mapping[str, Any], generated: bool) -> str | None:
        return image_key({"path": record["path"], "generated": generated}) if self.kept is not None else None

    def _known(self, keys: Sequence[str | None]) -> Rows | None:
        """The features of a batch, if an earlier run has found them all."""
        if self.kept is None:
            return None
        rows = []
        for key in keys:
            row = _decoded(self.kept.get(key), self.network.width)
            if row is None:
                return None
            rows.append(row)
        return np.stack(rows)


def _decoded(found: Mapping[str, Any] | None, width: int) -> Rows | None:
    if found is None or not isinstance(found.get("features"), str):
        return None
    try:
        row = np.frombuffer(base64.b64decode(found["features"], validate=True), "<f4")
    except (ValueError, binascii.Error):
        return None
    return row.astype(np.float32) if row.shape == (width,) and np.isfinite(row).all() else None
