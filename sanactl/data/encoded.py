"""Training data as `sanactl encode` writes it: latents and text embeddings, read as needed from safetensors shards.

A folder holds

    index.json           what the shards are a function of, and their list once all are there
    empty.safetensors    the empty prompt's embedding `text` [tokens, D], for dropped captions
    00000.safetensors    `latents` [numbers]: C*h*w a row, one row after the other
                         `text` [tokens, D]: the kept tokens of each caption, one caption after the other
                         `shapes` I32 [rows, 2 + K]: h, w of the latent, then the tokens of each of K captions (0: none)
                         `scores` F64 [rows, S]: CLIP scores of the captions, where these are chosen by them (NaN: none)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sanactl.data.captions import find_columns
from sanactl.data.encoded_choice import check_scored_columns, encoded_choice
from sanactl.data.listing import digest_of
from sanactl.data.order import BucketOrder, Order, ShuffledOrder
from sanactl.data.scored_captions import ScoreRule
from sanactl.data.tables import described
from sanactl.errors import InputError
from sanactl.files.regular import open_regular
from sanactl.files.safetensors import read_header

if TYPE_CHECKING:
    import torch

    from sanactl.model.tensors import TensorFile

__all__ = ["EMPTY", "FORMAT", "INDEX", "EncodedData", "is_encoded", "padded", "read_index"]

INDEX, EMPTY = "index.json", "empty.safetensors"
FORMAT = "sanactl-latents-1"
_MAX_INDEX = 64 * 2**20
_FLOATS = ("F32", "BF16", "F16")
_NEEDED = {
    "resolution": list, "factor": int, "multiple": int, "channels": int, "text_width": int, "captions": str,
    "dtype": str, "max_sequence_length": int, "complex_human_instruction": bool, "buckets": bool, "encoders": dict,
}  # fmt: skip
# No number of the settings is larger. The bound keeps products small in a manipulated file.
_LARGEST = 2**16
# Shards whose files are kept open at once.
_OPEN = 64


def is_encoded(folder: Path) -> bool:
    """Whether a folder is one that `sanactl encode` wrote, or began to."""
    try:
        with open_regular(folder / INDEX) as file:
            return FORMAT.encode() in file.read(200)
    except (InputError, OSError):
        return False


def read_index(folder: Path) -> dict[str, Any]:
    """The folder's index, checked as far as it goes: {"format", "settings", "key", "complete", ...}.

    Raises:
        InputError: it cannot be read, or is not one of sanactl's.
    """
    path = folder / INDEX
    try:
        with open_regular(path, most=_MAX_INDEX) as file:
            index = json.loads(file.read().decode())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error})") from None
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        raise InputError(f"{path}: not an index of encoded data", hint="make it anew with sanactl encode")
    settings: Any = index.get("settings")
    for field, kind in _NEEDED.items():
        if not isinstance(settings, dict) or not isinstance(settings.get(field), kind):
            raise InputError(f"{path}: no {field} in its settings", hint="make it anew with sanactl encode")
        for number in settings[field] if kind is list else [settings[field]] if kind is int else []:
            if type(number) is not int or not 0 < number <= _LARGEST:
                raise InputError(f"{path}: an impossible {field}, {settings[field]!r}")
    if len(settings["resolution"]) != 2:
        raise InputError(f"{path}: an impossible resolution, {settings['resolution']!r}")
    return index


@dataclass(frozen=True)
class _Shard:
    """Where the rows of a shard begin: `latent` [N] in numbers, `text` [N, K] in tokens."""

    path: Path
    shapes: NDArray[np.int64]
    latent: NDArray[np.int64]
    text: NDArray[np.int64]


class EncodedData:
    """Latents and text embeddings in the order that the images they were made from would have.

    Attributes:
        settings: what the shards are a function of (see docs/data.md).
        name, about, identity, skipped: as `TrainingData`'s.

    Raises:
        InputError: the folder is unfinished or damaged, or lacks a column of `captions`.
    """

    def __init__(
        self, folder: Path, seed: int, *, captions: str | None = None, rule: ScoreRule | None = None
    ) -> None:
        index = read_index(folder)
        self.folder, self.name, self.seed = folder, str(folder), seed
        self.settings: dict[str, Any] = index["settings"]
        self.skipped: list[str] = []
        if not index.get("complete"):
            raise InputError(
                f"{folder}: is not finished",
                hint=f"run the same sanactl encode again to go on; if jobs with --shard are done: sanactl merge {folder}",
            )
        stored = find_columns(_names(self.settings["captions"]), self.settings["captions"], self.name)
        check_scored_columns(self.settings, len(stored.columns), str(folder / INDEX))
        self.captions, self._scores = encoded_choice(stored, self.settings, self.name, captions, rule)
        self._columns = [stored.columns.index(c) for c in self.captions.columns]
        self._shards = self._read_shards(index.get("shards"), len(stored.columns))
        self._starts = np.cumsum([0, *(len(s.shapes) for s in self._shards)])
        self.count = int(self._starts[-1])
        if not self.count:
            raise InputError(f"{folder}: holds no examples")
        self.order = self._make_order()
        sizes = [(s.path.name, s.path.stat().st_size) for s in self._shards]
        # Without the name that the data had when they were encoded: it may be any path to the same files.
        self.identity = digest_of([str(index.get("key")), str(sizes), self.captions.identity])
        out = index.get("skipped")
        left = (
            [f"{len(out):,} images that could not be read when it was made"]
            if isinstance(out, list) and out
            else []
        )
        self.about = described(self.count, self.name, "encoded", left)
        self._handle = lru_cache(maxsize=_OPEN)(_open)
        self.empty = self._read_empty()

    def _read_shards(self, listed: Any, columns: int) -> list[_Shard]:
        if not isinstance(listed, list):
            raise InputError(
                f"{self.folder / INDEX}: lists no shards", hint="make it anew with sanactl encode"
            )
        shards = []
        for entry in listed:
            name = entry.get("file") if isinstance(entry, dict) else None
            if not isinstance(name, str) or Path(name).name != name:
                raise InputError(f"{self.folder / INDEX}: {name!r} is no shard's name")
            shards.append(_read_shard(self.folder / name, self.settings, columns, entry.get("count")))
        return shards

    def _make_order(self) -> Order:
        shapes = np.concatenate([s.shapes[:, :2] for s in self._shards])
        kinds, of = np.unique(shapes, axis=0, return_inverse=True)
        factor = self.settings["factor"]
        sizes = [(int(h) * factor, int(w) * factor) for h, w in kinds]
        if self.settings.get("buckets"):
            # Numbered as the bucket tables are, so that the order is that of the images.
            from sanactl.data.buckets import bucket_sizes

            height, width = self.settings["resolution"]
            table = bucket_sizes(height, width, self.settings["multiple"])
            if not set(sizes) <= set(table):
                raise InputError(f"{self.folder}: holds latents of sizes that are none of its buckets")
            numbers = np.array([table.index(size) for size in sizes])
            return BucketOrder(numbers[of.reshape(-1)], table, self.seed)
        if sizes != [tuple(self.settings["resolution"])]:
            raise InputError(f"{self.folder}: holds latents of another size than its index says")
        return ShuffledOrder(self.count, self.seed, sizes[0])

    def _read_empty(self) -> torch.Tensor:
        path = self.folder / EMPTY
        header = read_header(path)
        info = header.tensors.get("text")
        width, most = self.settings["text_width"], self.settings["max_sequence_length"]
        if info is None or info.dtype not in _FLOATS or len(info.shape) != 2 or info.shape[1] != width:
            raise InputError(f"{path}: holds no embedding of the empty prompt")
        if not 0 < info.shape[0] <= most:
            raise InputError(f"{path}: an embedding of {info.shape[0]} tokens; 1 to {most} are possible")
        return _open(path).read("text")

    def step(self, step: int, count: int) -> tuple[Sequence[int], tuple[int, int]]:
        """Positions of the `count` examples of a step, and the (height, width) of the images they were."""
        return self.order.step(step, count)

    def announce(self, say: Callable[[str], None]) -> None:
        """Nothing is skipped: images that could not be read were left out when the data were encoded."""

    def encoded(
        self,
        positions: Sequence[int],
        dropped: Sequence[bool],
        length: Callable[[Sequence[torch.Tensor], int], int] = lambda texts, most: most,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Latents [B, C, h, w] and text [B, T, D], float32, and the mask [B, T], on the CPU.

        Args:
            length: T, of the embeddings and the most tokens that there may be; by default the latter.
        """
        import torch

        latents, texts = [], []
        for position, drop in zip(positions, dropped, strict=True):
            latent, text = self._example(self.order.row(position), position, drop)
            latents.append(latent)
            texts.append(text)
        text, mask = padded(texts, length(texts, self.settings["max_sequence_length"]))
        return torch.stack(latents), text, mask

    def _example(self, row: int, position: int, drop: bool) -> tuple[torch.Tensor, torch.Tensor]:
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        shard, row = self._shards[number], row - int(self._starts[number])
        handle = self._handle(shard.path)
        height, width, *tokens = (int(n) for n in shard.shapes[row])
        shape = (self.settings["channels"], height, width)
        start = int(shard.latent[row])
        latent = handle.rows("latents", start, start + shape[0] * height * width).float().reshape(shape)
        known = handle.rows("scores", row, row + 1)[0].tolist() if self._scores else []
        scores = [known[number] for number in self._scores]
        column = self.captions.pick([tokens[c] > 0 for c in self._columns], self.seed, position, scores)
        if drop or column is None:
            return latent, self.empty.float()
        which = self._columns[column]
        start = int(shard.text[row, which])
        return latent, handle.rows("text", start, start + tokens[which]).float()


def _names(captions: str) -> list[str]:
    return [part.partition(":")[0] for part in captions.split(",")]


def _open(path: Path) -> TensorFile:
    from sanactl.model.tensors import TensorFile

    return TensorFile(path)


def _read_shard(path: Path, settings: dict[str, Any], columns: int, count: Any) -> _Shard:
    """Opens a shard and checks its table of shapes against its tensors.

    Raises:
        InputError: it is missing or damaged, or its values are impossible.
    """
    header = read_header(path)
    kinds = {name: (info.dtype, info.shape) for name, info in header.tensors.items()}
    scored = len(settings.get("scored", []))
    if set(kinds) != {"latents", "text", "shapes", *(["scores"] if scored else [])}:
        raise InputError(f"{path}: not a shard of encoded data")
    (_, numbers), (_, embedded), (kind, table) = kinds["latents"], kinds["text"], kinds["shapes"]
    if (
        kinds["latents"][0] not in _FLOATS
        or kinds["text"][0] not in _FLOATS
        or kind != "I32"
        or len(numbers) != 1
        or len(embedded) != 2
        or embedded[1] != settings["text_width"]
        or len(table) != 2
        or table[1] != 2 + columns
        or table[0] != count
        or (scored and kinds["scores"] != ("F64", (count, scored)))
    ):
        raise InputError(f"{path}: its tensors are not those that the index tells of")
    info = header.tensors["shapes"]
    shapes = np.fromfile(path, dtype="<i4", count=table[0] * table[1], offset=info.offset)
    shapes = shapes.reshape(table).astype(np.int64)
    most, side = settings["max_sequence_length"], 2**15
    plausible = (shapes >= 0).all() and (shapes[:, 2:] <= most).all()
    if not plausible or (shapes[:, :2] == 0).any() or (shapes[:, :2] > side).any():
        raise InputError(f"{path}: its table of shapes holds impossible ones")
    latent = np.cumsum([0, *(settings["channels"] * shapes[:, 0] * shapes[:, 1])])
    text = np.cumsum(np.concatenate([[0], shapes[:, 2:].reshape(-1)]))
    if latent[-1] != numbers[0] or text[-1] != embedded[0]:
        raise InputError(f"{path}: its table of shapes does not fit its tensors")
    return _Shard(path, shapes, latent[:-1], text[:-1].reshape(table[0], columns))


def padded(texts: Sequence[torch.Tensor], length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings [tokens, D] of B captions as [B, length, D] float32, zeros behind, and the mask [B, length]."""
    import torch

    text = torch.zeros(len(texts), length, texts[0].shape[1], device=texts[0].device)
    mask = torch.zeros(len(texts), length, dtype=torch.int64, device=texts[0].device)
    for row, embedding in enumerate(texts):
        text[row, : len(embedding)] = embedding
        mask[row, : len(embedding)] = 1
    return text, mask
