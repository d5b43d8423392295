"""Pictures of two kinds, and the Fréchet distance of their features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Rows = np.ndarray[Any, Any]


def write_sets(folder: Path) -> list[Path]:
    """Eleven pictures, and five of another kind in a folder of folders."""
    rng = np.random.default_rng(0)
    for number in range(16):
        kind = "drawn" if number < 11 else f"real/{number % 2}"
        image = rng.integers(0, 256 if number < 11 else 160, (3, 4, 3), dtype=np.uint8)
        path = folder / kind / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).resize((30 + number, 28), Image.Resampling.NEAREST).save(path)
    (folder / "real/.hidden.png").write_text("no image")
    (folder / "real/notes.txt").write_text("no image")
    return [folder / "drawn", folder / "real"]


def listed(folder: Path) -> list[Path]:
    return [p for p in sorted(folder.rglob("*.png")) if not p.name.startswith(".")]


def frechet(a: Rows, b: Rows) -> float:
    """By the eigenvalues of the product, as torch-fidelity does."""
    s, t = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = np.sqrt(np.linalg.eigvals(s @ t).astype(complex)).real.sum()
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(s) + np.trace(t) - 2 * root)
