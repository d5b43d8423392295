"""Open a SANA checkpoint of any layout as a table of tensors, without reading the tensors."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from sanactl.checkpoint.config import SanaConfig, check_config
from sanactl.checkpoint.decode import decode_metadata
from sanactl.checkpoint.digest import content_digest, hash_tensors, unread_bytes
from sanactl.checkpoint.kinds import describe_kind, guess_kind
from sanactl.checkpoint.locate import PICKLES, Located, local_path, locate
from sanactl.checkpoint.metadata import resolve_components
from sanactl.checkpoint.sana import BLOCK, check_tensors
from sanactl.checkpoint.table import Stamp, TensorRef
from sanactl.errors import InputError
from sanactl.files.progress import SILENT, Progress
from sanactl.files.safetensors import MAX_HEADER, Header, read_header

__all__ = ["Checkpoint", "Stamp", "TensorRef", "open_checkpoint"]


_LONG = 1_000_000_000  # bytes, whose reading is shown


@dataclass(frozen=True)
class Checkpoint:
    """A SANA transformer on disk, opened and checked; its tensors are not read.

    Attributes:
        ref: what the user named.
        path: the file, or the folder that holds the transformer's config.json.
        kind: "file", "folder", "pipeline", "hub" or "native".
        tensors: name (diffusers layout) to place.
        config: of the `SanaTransformer2DModel`, checked and complete.
        components: text_encoder, tokenizer, vae, scheduler to {"source", "subfolder"}; a source is "builtin:shapes",
            an absolute path or a Hub id. Empty for a bare transformer.
        sampling: default sampling settings, {} where none are given.
        lineage: how it was made, oldest first.
        metadata: the header's strings as they stand (of all shards together).
        headers: (file, header bytes' length) of each file, in order.
        stamps: state of each file when it was opened.
        notes: what a person should know of how it was opened.
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

    @property
    def name(self) -> str:
        """A short name for people and for the names of outputs: "base" for base.st, the folder's for a folder."""
        path = self.path
        if self.kind == "hub":
            return self.ref.rsplit("/", 1)[-1]
        if path.is_dir():
            path = path.absolute()
            return path.parent.name if path.name == "transformer" and path.parent.name else path.name
        return path.stem

    @property
    def source(self) -> str:
        """What opens it again, components and all: a Hub id and a pipeline folder by what the user named."""
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
        """Parameters by dtype, the commonest first."""
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
        """The tensors of each block, named within it: sorted out once, so that all blocks cost one reading."""
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
        """What the checkpoint is known by ("sha256:..."): the same for the same tensors, config and metadata.

        The files are read once, whole; a large one's hashes are remembered.
        """
        return content_digest(self.config, self.metadata, self.tensors, self.hashes)

    def read_hashes(self, progress: Progress = SILENT, known: Mapping[str, bytes] | None = None) -> None:
        """Take the hashes now, showing long reading to `progress`; those in `known` (by tensor) are not read."""
        if "hashes" in self.__dict__:
            return
        left = min(
            self.unread_bytes, sum(r.nbytes for n, r in self.tensors.items() if n not in (known or {}))
        )
        sink = progress if left >= _LONG else SILENT
        sink.start(left, f"reading {self.name} once, to know it again")
        try:
            self.__dict__["hashes"] = hash_tensors(self.tensors, self.stamps, known, sink)
        finally:
            sink.close()

    @property
    def unread_bytes(self) -> int:
        """Bytes that would have to be read for `digest`."""
        return 0 if "hashes" in self.__dict__ else unread_bytes(self.tensors)


def open_checkpoint(
    ref: str | os.PathLike[str],
    *,
    revision: str | None = None,
    variant: str | None = None,
    native: bool = False,
    config: Mapping[str, Any] | None = None,
) -> Checkpoint:
    """Open a checkpoint and check that it is a whole SANA transformer.

    Args:
        ref: a .st or .safetensors file that describes itself, a diffusers transformer folder (sharded or not), a
            pipeline folder, or a Hub id ("owner/name"; the cache first, then a download of the transformer alone,
            never with HF_HUB_OFFLINE=1).
        revision: branch, tag or commit of a Hub id.
        variant: of a folder that holds several ("bf16"); default the plain one, else bf16.
        native: open files in the native layout too, .pth or .safetensors (see `layouts.native`): their bytes can be moved
            by surgery, but `Checkpoint.files` is not what diffusers loads.
        config: used in place of the one that the checkpoint carries.

    Raises:
        InputError: it does not exist, is damaged, or is no SANA checkpoint; names the file and the first fault.
    """
    if native and _is_native(path := local_path(os.fspath(ref))):
        from sanactl.checkpoint.layouts.native import open_native

        return open_native(path, os.fspath(ref), config)
    located = locate(ref, revision=revision, variant=variant)
    stamps: dict[Path, Stamp] = {}
    headers: dict[Path, Header] = {}
    for path in located.files:
        headers[path] = read_header(path)
        stamps[path] = Stamp.of(os.stat(path))
    tensors = _merge(located, headers)
    metadata: dict[str, str] = {}
    for header in reversed(headers.values()):
        metadata |= header.metadata
    where = os.fspath(ref)
    stored = decode_metadata(metadata, where)
    config = config or located.config or stored.config
    if config is None:
        names = list(tensors)
        if "caption_norm.weight" in tensors and guess_kind(names) is None:
            raise InputError(
                f"{where} holds SANA tensors but no config",
                hint="put its config.json beside it and name the folder",
            )
        raise InputError(f"{where} is not a SANA checkpoint: {describe_kind(names)}")
    full = check_config(config, where)
    check_tensors({name: tensor.shape for name, tensor in tensors.items()}, full, where)
    folder = located.path if located.path.is_dir() else located.path.parent
    return Checkpoint(
        ref=where,
        path=located.path,
        kind=located.kind,
        tensors=tensors,
        config=full,
        components=located.components or resolve_components(stored.components, folder),
        sampling=stored.sampling,
        lineage=stored.lineage,
        metadata=metadata,
        headers=tuple((path, header.data_start) for path, header in headers.items()),
        stamps=stamps,
        notes=located.notes,
    )


def _is_native(path: Path) -> bool:
    """Whether a file has to be opened by `layouts.native`: by its suffix, or a safetensors file by its tensors' names."""
    suffix = path.suffix.lower()
    if suffix in PICKLES or suffix not in (".st", ".safetensors") or not path.is_file():
        return suffix in PICKLES and path.is_file()
    try:
        with open(path, "rb") as file:  # whether the header holds is for `read_header` to say, once
            head = file.read(min(int.from_bytes(file.read(8), "little"), MAX_HEADER))
    except OSError:
        return False
    return any(
        name in head for name in (b'blocks.0.cross_attn.kv_linear.weight"', b"_orig_mod.", b'"module.')
    )


def _merge(located: Located, headers: Mapping[Path, Header]) -> dict[str, TensorRef]:
    """One table from all shards, held against the index."""
    tensors: dict[str, TensorRef] = {}
    for path, header in headers.items():
        for name, info in header.tensors.items():
            if name in tensors:
                raise InputError(f"{path} holds {name}, which {tensors[name].file.name} holds too")
            if located.index is not None and located.index.get(name) != path.name:
                says = located.index.get(name, "nowhere")
                raise InputError(f"{path} holds {name}, which the index puts in {says}")
            tensors[name] = TensorRef(path, info.offset, info.nbytes, info.dtype, info.shape)
    for name, file in (located.index or {}).items():
        if name not in tensors:
            raise InputError(f"{located.path}: the index puts {name} in {file}, which does not hold it")
    return tensors
