"""An opened checkpoint as a table of tensors, the same for every layout."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from sanactl.checkpoint.config import SanaConfig
from sanactl.checkpoint.digest import content_digest, hash_tensors, unread_bytes
from sanactl.checkpoint.sana import BLOCK
from sanactl.checkpoint.spans import Stamp, TensorRef
from sanactl.errors import InputError
from sanactl.files.progress import SILENT, Progress

__all__ = ["Checkpoint", "Stamp", "TensorRef"]

_LONG = 1_000_000_000  # bytes; reading this much shows progress


@dataclass(frozen=True, repr=False)
class Checkpoint:
    """A SANA transformer on disk, opened and checked; its tensors are not read.

    Attributes:
        ref: what the user named.
        path: the file, or the folder with the transformer's config.json.
        kind: "file", "folder", "pipeline", "hub" or "native".
        tensors: name (in the diffusers layout) to place.
        config: of the `SanaTransformer2DModel`, checked and complete.
        components: text_encoder, tokenizer, vae, scheduler to {"source", "subfolder"}; a source is "builtin:shapes",
            an absolute path or a Hub id. Empty for a bare transformer.
        sampling: default sampling settings; {} if there are none.
        lineage: how it was made, oldest first.
        metadata: the header's strings, unchanged (of all shards together).
        headers: (file, length of its header in bytes) of each file, in order.
        stamps: each file's state when it was opened.
        notes: lines for the user about how it was opened.
        given: the user's `--components`, if the components are not the checkpoint's own.
    """

    ref: str
    path: Path
    kind: str
    tensors: Mapping[str, TensorRef]
    config: SanaConfig
    components: dict[str, dict[str, Any]] = field(default_factory=dict)
    sampling: dict[str, Any] = field(default_factory=dict)
    lineage: list[dict[str, Any]] = field(default_factory=list)
    metadata: dict[str, str] = field(default_factory=dict)
    headers: tuple[tuple[Path, int], ...] = ()
    stamps: Mapping[Path, Stamp] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    given: str | None = None

    def __repr__(self) -> str:
        """Short, for a notebook: the whole has thousands of tensors."""
        return f"Checkpoint({self.source!r}, blocks={self.num_blocks}, parameters={self.num_parameters:,})"

    @property
    def name(self) -> str:
        """A short name for messages and names of outputs: "base" for base.st, the folder's name for a folder."""
        path = self.path
        if self.kind == "hub":
            return self.ref.rsplit("/", 1)[-1]
        if path.is_dir():
            path = path.absolute()
            return path.parent.name if path.name == "transformer" and path.parent.name else path.name
        return path.stem

    @property
    def source(self) -> str:
        """The name that opens it again with its components: what the user named for a Hub id or a pipeline folder, else the path."""
        return self.ref if self.kind in ("hub", "pipeline") else str(self.path)

    @property
    def num_blocks(self) -> int:
        return self.config.num_layers

    @property
    def num_parameters(self) -> int:
        return sum(math.prod(ref.shape) for ref in self.tensors.values())

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(ref.nbytes for ref in self.tensors.values())

    @property
    def files(self) -> tuple[Path, ...]:
        """The safetensors files, in order."""
        return tuple(path for path, _ in self.headers)

    @property
    def dtypes(self) -> dict[str, int]:
        """Number of parameters by dtype, the most frequent first."""
        counts: dict[str, int] = {}
        for ref in self.tensors.values():
            counts[ref.dtype] = counts.get(ref.dtype, 0) + math.prod(ref.shape)
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    def block_tensors(self, index: int) -> dict[str, TensorRef]:
        """Tensors of block `index` (from 0), named within the block ("attn1.to_q.weight")."""
        if not 0 <= index < self.num_blocks:
            raise InputError(
                f"{self.ref} has no block {index}", hint=f"its blocks are 0 to {self.num_blocks - 1}"
            )
        return dict(self._by_block[index])

    def outer_tensors(self) -> dict[str, TensorRef]:
        """Tensors outside the blocks."""
        return {name: ref for name, ref in self.tensors.items() if not BLOCK.match(name)}

    @cached_property
    def _by_block(self) -> list[dict[str, TensorRef]]:
        """The tensors of each block, named within it: sorted once for all blocks."""
        blocks: list[dict[str, TensorRef]] = [{} for _ in range(self.num_blocks)]
        for name, ref in self.tensors.items():
            if match := BLOCK.match(name):
                blocks[int(match[1])][match[2]] = ref
        return blocks

    @cached_property
    def hashes(self) -> dict[str, bytes]:
        """The hash of each tensor's bytes; see `sanactl.checkpoint.digest`."""
        return hash_tensors(self.tensors, self.stamps)

    @cached_property
    def digest(self) -> str:
        """The checkpoint's digest ("sha256:..."): the same for the same tensors, config and metadata.

        The first call reads all bytes of the files. Hashes of large files are remembered.
        """
        return content_digest(self.config, self.metadata, self.tensors, self.hashes)

    def read_hashes(self, progress: Progress = SILENT, known: Mapping[str, bytes] | None = None) -> None:
        """Compute the hashes now, with progress if it takes long; tensors in `known` (hashes by name) are not read."""
        if "hashes" in self.__dict__:
            return
        left = min(
            self.unread_bytes, sum(r.nbytes for n, r in self.tensors.items() if n not in (known or {}))
        )
        sink = progress if left >= _LONG else SILENT
        sink.start(left, f"reading {self.name} once, to identify it")
        try:
            self.__dict__["hashes"] = hash_tensors(self.tensors, self.stamps, known, sink)
        finally:
            sink.close()

    @property
    def unread_bytes(self) -> int:
        """Number of bytes that `digest` would read; 0 once the hashes are known."""
        return 0 if "hashes" in self.__dict__ else unread_bytes(self.tensors)
