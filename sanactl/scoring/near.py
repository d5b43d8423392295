"""Images that are alike, for `filter --dedup`: by a perceptual hash, or by CLIP's vectors.

The perceptual hash is the one of the libraries (`imagehash.phash`): 32 x 32 grey pixels, their DCT, and which of the
8 x 8 lowest coefficients are above the median. scipy has the DCT and Pillow the pixels, and both are needed anyway, so
that the option works in every installation; the bits are those of imagehash.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sanactl.errors import InputError, SanactlError, UsageError
from sanactl.files.images import read_image
from sanactl.model.sharing import at_once, compute_all
from sanactl.records.batches import batches
from sanactl.records.records import MAX_HELD, SHORTEST, Record, dumps

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    from sanactl.scoring.clip_model import ClipModel

__all__ = ["ClipLikeness", "HashLikeness", "Likeness", "number_of", "open_likeness", "without_near"]

BITS, COSINE = 2, 0.97
MODEL = "openai/clip-vit-large-patch14"
_LONGEST = 2000
_HINT = "give phash, phash:BITS (0 to 31), clip, clip:MODEL or clip:MODEL:COSINE (above 0, at most 1)"


class Likeness(ABC):
    """When two images are alike: their vectors' dot product is at least `least`.

    Attributes:
        name: for people: "phash:2".
        least: the dot product.
        batch_size: images that are read for `vectors` at once; it gets those of them that can be read.
    """

    name: str
    least: float
    batch_size: int
    divides = False  # whether several processes share the images

    @abstractmethod
    def vectors(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """float32 [images, width]."""

    def read(self, paths: Sequence[str]) -> list[NDArray[np.float32] | InputError]:
        """The vector of each image file, or why it cannot be read."""
        from PIL import Image

        found: list[Any] = []
        images: list[Image.Image] = []
        for path in paths:
            try:
                images.append(Image.fromarray(read_image(Path(path))))
                found.append(None)
            except InputError as error:
                found.append(error)
        vectors = iter(self.vectors(images) if images else ())
        return [next(vectors) if one is None else one for one in found]


class HashLikeness(Likeness):
    """Perceptual hashes of 64 bits that differ in no more than some. It compares shapes in grey, not colours."""

    batch_size = 1

    def __init__(self, bits: int = BITS) -> None:
        self.name, self.least = f"phash:{bits}", 64.0 - 2 * bits

    def vectors(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        import numpy as np

        # The dot product of vectors of 1 and -1 is 64 - 2 x (bits that differ), exactly.
        return np.array([np.where(perceptual_hash(image), 1, -1) for image in images], np.float32)


def perceptual_hash(image: Image.Image) -> NDArray[np.bool_]:
    """The 64 bits of an image, bool [64]."""
    import numpy as np
    from PIL import Image as pillow
    from scipy.fft import dctn

    grey = image.convert("L").resize((32, 32), pillow.Resampling.LANCZOS)
    low = dctn(np.asarray(grey, dtype=np.float64))[:8, :8].reshape(-1)
    bits: NDArray[np.bool_] = low > np.median(low)
    return bits


class ClipLikeness(Likeness):
    """CLIP's vectors with a cosine of at least so much."""

    batch_size = 16
    divides = True

    def __init__(self, model: ClipModel, cosine: float = COSINE) -> None:
        self.model = model
        # A vector's product with itself can be below 1 by rounding.
        self.name, self.least = f"clip:{model.label}:{cosine:g}", min(cosine, 1 - 1e-6)
        self._checked = False

    def vectors(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        from sanactl.scoring.detectors.check import ensure_checked

        if not self._checked:
            ensure_checked(self.model, None)
            self._checked = True
        found: NDArray[np.float32] = self.model.images(images).cpu().numpy()
        return found


def open_likeness(text: str, device: str | None = None) -> Likeness:
    """What `--dedup` names: `phash`, `phash:BITS`, `clip`, `clip:MODEL` or `clip:MODEL:COSINE`.

    Args:
        device: where CLIP runs; None is the best there is.

    Raises:
        UsageError: it is none of these.
        InputError: there is no such CLIP.
    """
    kind, _, rest = text.partition(":")
    if kind == "phash":
        if rest and not (rest.isascii() and rest.isdigit() and int(rest[:9]) < 32):
            raise UsageError(
                f"--dedup {text[:80]}: {rest[:40]} is no number of bits from 0 to 31", hint=_HINT
            )
        return HashLikeness(int(rest) if rest else BITS)
    if kind != "clip" or len(text) > _LONGEST:
        raise UsageError(f"--dedup {text[:80]!r} is no way to find images that are alike", hint=_HINT)
    model, colon, last = rest.rpartition(":")
    try:
        cosine = float(last) if colon else COSINE
    except ValueError:  # a model's name with a colon
        model, cosine = rest, COSINE
    if not 0 < cosine <= 1:
        raise UsageError(f"--dedup {text[:80]}: {last[:40]} is no cosine above 0", hint=_HINT)

    from sanactl.model.conditioning import pick_device
    from sanactl.scoring.clip_model import ClipModel

    return ClipLikeness(ClipModel((model if colon else rest) or MODEL, pick_device(device)), cosine)


class _Kept:
    """The vectors of images that stay."""

    def __init__(self, least: float) -> None:
        self._least, self._count = least, 0
        self._vectors: NDArray[np.float32] | None = None

    def add_new(self, batch: NDArray[np.float32]) -> list[int | None]:
        """Adds those vectors of a batch [B, width] that are like none so far, one after the other.

        Returns:
            for each None if it was added, else the number of the one that it is like: the first added has 0.
        """
        import numpy as np

        before = self._count
        self._reserve(batch.shape)
        assert self._vectors is not None
        earlier = batch @ self._vectors[:before].T >= self._least
        among = batch @ batch.T >= self._least
        found: list[int | None] = []
        added: list[int] = []  # of the batch
        for row, vector in enumerate(batch):
            like = int(np.argmax(earlier[row])) if earlier[row].any() else None
            if like is None:
                like = next((before + n for n, other in enumerate(added) if among[row, other]), None)
            if like is None:
                added.append(row)
                self._vectors[self._count] = vector
                self._count += 1
            found.append(like)
        return found

    def _reserve(self, shape: tuple[int, ...]) -> None:
        import numpy as np

        needed = self._count + shape[0]
        if self._vectors is None or needed > len(self._vectors):
            larger = np.empty((max(1024, 2 * needed), shape[1]), np.float32)
            if self._vectors is not None:
                larger[: self._count] = self._vectors[: self._count]
            self._vectors = larger


def without_near(
    records: Iterable[Record],
    likeness: Likeness,
    by: str | None,
    count: Callable[[str], None],
    bad: Callable[[InputError], None],
) -> Iterator[Record]:
    """The records whose image is like none that passes: no two that pass are alike, and each that is dropped is like one.

    A record is held only with `by`; of the images that pass their vectors stay in memory (256 bytes of a hash, 3 KB of
    CLIP's 768 numbers).

    Args:
        records: image records.
        likeness: when two images are alike.
        by: the field whose larger value decides which passes; records without it come last. None: the first passes.
        count: called with "--dedup" for each that is dropped.
        bad: called with the error of each image that cannot be read; where it returns, the record does not pass.

    Raises:
        InputError: what `bad` raises; a value is no number, or `by` would hold more than a gigabyte of records.
    """
    if by is None:
        for _, record in _new_ones(enumerate(records), likeness, count, bad):
            yield record
        return
    held: list[tuple[float, int, Record]] = []
    total = 0
    for place, record in enumerate(records):
        total += max(len(dumps(record)), SHORTEST)
        if total > MAX_HELD:
            raise InputError(
                f"more than {MAX_HELD >> 20:,} MiB of records, too many to hold at once for --dedup with --by",
                hint="leave --by out, so that the first of images that are alike passes",
            )
        value = number_of(record, by)
        held.append((float("inf") if value is None else -value, place, record))
    held.sort(key=lambda entry: entry[:2])
    best = ((place, record) for _, place, record in held)
    passed = _new_ones(best, likeness, count, bad)
    for _, record in sorted(passed, key=lambda entry: entry[0]):
        yield record


def _new_ones(
    records: Iterable[tuple[int, Record]],
    likeness: Likeness,
    count: Callable[[str], None],
    bad: Callable[[InputError], None],
) -> Iterator[tuple[int, Record]]:
    """The records that are like none before them, with their places."""
    import numpy as np

    kept, size = _Kept(likeness.least), likeness.batch_size
    for some in batches(records, size * at_once()):
        parts = [some[first : first + size] for first in range(0, len(some), size)]
        answers = compute_all([[str(r["path"]) for _, r in part] for part in parts], likeness.read)
        for part, answer in zip(parts, answers, strict=True):
            if isinstance(answer, SanactlError):
                raise answer
            readable: list[tuple[int, Record]] = []
            vectors: list[NDArray[np.float32]] = []
            for one, found in zip(part, answer, strict=True):
                if isinstance(found, InputError):
                    bad(found)
                else:
                    readable.append(one)
                    vectors.append(found)
            likes = kept.add_new(np.stack(vectors)) if vectors else []
            for one, like in zip(readable, likes, strict=True):
                if like is None:
                    yield one
                else:
                    count("--dedup")


def number_of(record: Record, field: str) -> float | None:
    """A record's field as a number; None where it is null or not there.

    Raises:
        InputError: it is something else.
    """
    value: Any = record.get(field)
    if isinstance(value, bool) or not isinstance(value, int | float | None):
        raise InputError(f"{record.get('path')}: {field} is {str(value)[:60]!r}, not a number")
    return value
