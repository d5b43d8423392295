"""The sizes of a table's images, read from their headers and remembered between runs."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sanactl.data.tables import SizedExamples
from sanactl.files.atomic import atomic_path

__all__ = ["image_sizes"]

# Rows; for fewer, reading the headers again takes less than a second.
REMEMBERED_FROM = 2000


def image_sizes(table: SizedExamples) -> NDArray[np.int64]:
    """[N, 2] heights and widths of the images; 0 where one cannot be read.

    Those of large tables are kept in `$XDG_CACHE_HOME/sanactl` (`~/.cache/sanactl`) under the table's identity, since
    a table of a million images takes many minutes to look through, and a resumed run does it again.
    """
    rows = table.count
    cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "sanactl"
    file = cache / f"sizes-{table.identity[:32]}.npy"
    # Without a home folder the path begins with ~, which must not become a folder.
    remembered = rows >= REMEMBERED_FROM and cache.is_absolute()
    if remembered:
        with contextlib.suppress(OSError, ValueError, EOFError):
            known: NDArray[np.int64] = np.load(file, allow_pickle=False)
            if known.shape == (rows, 2) and known.dtype == np.int64 and (known >= 0).all():
                return known
    sizes = np.array(list(table.sizes()), dtype=np.int64).reshape(-1, 2)
    if remembered:
        with contextlib.suppress(Exception):  # it works without a cache
            cache.mkdir(parents=True, exist_ok=True)
            with atomic_path(file, force=True) as temporary, temporary.open("wb") as stream:
                np.save(stream, sizes)
    return sizes
