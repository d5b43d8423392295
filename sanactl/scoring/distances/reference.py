"""What images are compared with: a folder, image records, or statistics in a .npz, and the writing of these.

A .npz has `mu` and `sigma`, as pytorch-fid, torch-fidelity's users and clean-fid have them, and `features` where a
metric needs them. Beside them are `model`, `weights`, `protocol`, `size`, `dtype` and `count`.
"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sanactl.errors import InputError
from sanactl.files.paths import user_path
from sanactl.files.regular import open_regular
from sanactl.scoring.distances.moments import Gaussian

__all__ = ["Reference", "open_reference", "save_statistics"]

_MOST_BYTES = 16 << 30
# A covariance may be this much unlike its transpose, relative to its largest entry: float32 sums of other programs.
_ASYMMETRY = 1e-4


@dataclass(frozen=True)
class Reference:
    """A reference.

    Attributes:
        name: as it was given.
        paths: its images; None for statistics.
        gaussian, features: of a .npz, as far as they are in it; features are float32 [N, D].
        about: "model", "weights", "protocol", "size", "dtype" and "count" of a .npz; empty if another program wrote it.
    """

    name: str
    paths: list[Path] | None
    gaussian: Gaussian | None = None
    features: NDArray[np.float32] | None = None
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def count(self) -> int | None:
        """How many images it is of; None where a .npz does not say."""
        if self.paths is not None:
            return len(self.paths)
        if self.features is not None:
            return len(self.features)
        return self.about.get("count")

    def check(self, wanted: dict[str, Any], width: int) -> None:
        """Refuses statistics that were made in another way.

        Args:
            wanted: how the images' features are made, with the keys of `about`.
            width: how many features there are.

        Raises:
            InputError: names what differs.
        """
        for name in ("protocol", "size", "weights", "dtype"):
            has = self.about.get(name)
            if has is not None and has != wanted[name]:
                raise InputError(
                    f"{self.name}: made with {name} {has}, and the images are measured with {wanted[name]}",
                    hint="give the same options, or the reference's images in place of its statistics",
                )
        has = self.gaussian.mu.shape[0] if self.gaussian is not None else None
        has = self.features.shape[1] if self.features is not None else has
        if has is not None and has != width:
            raise InputError(f"{self.name}: of {has:,} features, and the images have {width:,}")


def open_reference(given: str) -> Reference:
    """The reference that a name stands for; images are listed, not read.

    Args:
        given: a folder of images (plain, or in GenEval's layout), a file of image records, or a .npz.

    Raises:
        InputError: there is no such thing, there are no images, or the .npz is damaged or no statistics.
    """
    from sanactl.records.geneval_folder import is_geneval_folder, read_geneval_folder
    from sanactl.records.image_folder import list_images
    from sanactl.records.records import stream_records

    path = user_path(given)
    if path.suffix.lower() == ".npz" and not path.is_dir():
        return _read_statistics(path)
    if path.is_dir():
        if is_geneval_folder(path):
            return Reference(given, [Path(r["path"]) for r in read_geneval_folder(path)])
        return Reference(given, list_images(path))
    paths = [Path(record["path"]) for record in stream_records(path, kinds=("image",))]
    if not paths:
        raise InputError(f"{given}: no image records in it")
    return Reference(given, paths)


def _read_statistics(path: Path) -> Reference:
    hint = "statistics are a .npz with mu and sigma, as --save-reference writes"
    with open_regular(path, most=_MOST_BYTES, what="statistics") as stream:
        try:
            found = np.load(stream, allow_pickle=False)
            if not isinstance(found, np.lib.npyio.NpzFile):
                raise InputError(f"{path}: one array, not statistics", hint=hint)
            members = found.zip.infolist() if found.zip is not None else []
            if sum(info.file_size for info in members) > _MOST_BYTES:
                raise InputError(f"{path}: its arrays are larger than {_MOST_BYTES >> 30} GiB")
            arrays = {name: found[name] for name in found.files if name in _KNOWN}
        except (
            OSError,
            ValueError,
            KeyError,
            EOFError,
            MemoryError,
            zipfile.BadZipFile,
            zlib.error,
        ) as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise InputError(f"{path}: cannot be read as statistics ({reason})", hint=hint) from error
    about = {name: arrays[name].item() for name in _ABOUT if name in arrays and arrays[name].ndim == 0}
    for name, kind in _ABOUT.items():
        if name in arrays and type(about.get(name)) is not kind:
            raise InputError(f"{path}: its {name} is no {kind.__name__}", hint=hint)
    gaussian, features = None, arrays.get("features")
    if "mu" in arrays or "sigma" in arrays:
        gaussian = _gaussian(path, arrays.get("mu"), arrays.get("sigma"))
    if features is not None and (features.ndim != 2 or len(features) < 2 or not _is_finite(features)):
        raise InputError(f"{path}: its features are no table of finite numbers", hint=hint)
    if gaussian is None and features is None:
        raise InputError(f"{path}: neither mu and sigma nor features in it", hint=hint)
    if features is not None:
        features = features.astype(np.float32)
    return Reference(str(path), None, gaussian, features, about)


_ABOUT: dict[str, type] = {
    "model": str,
    "weights": str,
    "protocol": str,
    "size": int,
    "dtype": str,
    "count": int,
}
_KNOWN = {"mu", "sigma", "features", *_ABOUT}


def _gaussian(path: Path, mu: NDArray[Any] | None, sigma: NDArray[Any] | None) -> Gaussian:
    if mu is None or sigma is None:
        raise InputError(f"{path}: it has {'sigma' if mu is None else 'mu'} alone; mu and sigma are needed")
    mu = np.atleast_1d(mu)
    if mu.ndim != 1 or sigma.shape != (len(mu), len(mu)) or not (_is_finite(mu) and _is_finite(sigma)):
        raise InputError(
            f"{path}: mu {mu.shape} and sigma {sigma.shape} are no mean and covariance of finite numbers"
        )
    mu, sigma = mu.astype(np.float64), sigma.astype(np.float64)
    if np.abs(sigma - sigma.T).max() > _ASYMMETRY * np.abs(sigma).max() or np.diagonal(sigma).min() < 0:
        raise InputError(f"{path}: sigma is no covariance: not symmetric, or negative on its diagonal")
    return Gaussian(mu, (sigma + sigma.T) / 2)


def _is_finite(values: NDArray[Any]) -> bool:
    return values.dtype.kind in "fiu" and bool(np.isfinite(values).all())


def save_statistics(
    path: Path, about: dict[str, Any], gaussian: Gaussian | None, features: NDArray[np.float32] | None
) -> None:
    """Writes a reference's statistics, whole or not at all.

    Raises:
        OutputExistsError: the file is there.
        SanactlError: it cannot be written.
    """
    from sanactl.files.atomic import atomic_path

    arrays: dict[str, Any] = {name: np.array(about[name]) for name in _ABOUT}
    if gaussian is not None:
        arrays |= {"mu": gaussian.mu, "sigma": gaussian.sigma}
    if features is not None:
        arrays["features"] = features
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **arrays)
