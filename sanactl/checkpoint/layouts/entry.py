"""The entry of a checkpoint layout: how a file of this layout is recognised, opened and written."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sanactl.checkpoint.components import resolve_components
from sanactl.checkpoint.config import check_config
from sanactl.checkpoint.decode import Stored
from sanactl.checkpoint.sana import check_tensors
from sanactl.checkpoint.spans import Stamp, TensorRef
from sanactl.checkpoint.table import Checkpoint
from sanactl.errors import InputError

__all__ = ["Chunks", "Layout", "NamedTensor", "StateDict", "opened"]

NamedTensor = tuple[str, str, tuple[int, ...]]  # name, dtype, shape
Chunks = Callable[[str], Iterator[bytes]]  # of a tensor's name: its bytes, in parts


@dataclass(frozen=True)
class Layout:
    """A layout of checkpoint files other than diffusers' own. An opened checkpoint always has diffusers' names.

    A new one is a module with such a value, and a line in `sanactl.checkpoint.layouts.registry.LAYOUTS`.

    Attributes:
        name: of the layout; also the `Checkpoint.kind` of what is opened from it.
        what: what messages call such a file, with its article ("a pickled checkpoint").
        reads: suffixes of the files that may be in it, lower case.
        open: opens a file as a checkpoint with diffusers' names. It is called with the file, what the user named, and a
            diffusers config that replaces the file's own, or None; see `opened`.
        holds: whether a file with one of these suffixes has this layout. It reads little of the file and raises nothing.
        writes: suffixes of the files that are written in it, the usual one first; none where it is only read.
        names: from a checkpoint to the names of the file's tensors, in order, each with the diffusers tensors whose rows
            it joins. It raises InputError for a model that the layout cannot hold.
        write: writes a file. It is called with the path, (name, dtype, shape) of each tensor in order, strings to keep
            beside them, and a function from a tensor's name to its bytes in parts. The parts are made one at a time,
            so that a large checkpoint never is in memory.
    """

    name: str
    what: str
    reads: tuple[str, ...]
    open: Callable[[Path, str, Mapping[str, Any] | None], Checkpoint]
    holds: Callable[[Path], bool] = lambda path: True
    writes: tuple[str, ...] = ()
    names: Callable[[Checkpoint], Mapping[str, tuple[str, ...]]] | None = None
    write: Callable[[Path, Iterable[NamedTensor], Mapping[str, str], Chunks], None] | None = None


@dataclass(frozen=True)
class StateDict:
    """The contents of a file.

    Attributes:
        tensors: the name in the file to the place in the file.
        strings: sanactl's header strings.
        notes: lines for the user about what was chosen from the file.
    """

    tensors: dict[str, TensorRef]
    strings: dict[str, str]
    notes: tuple[str, ...] = ()


def opened(
    kind: str, path: Path, where: str, state: StateDict, stored: Stored, config: Mapping[str, Any]
) -> Checkpoint:
    """Make a checked `Checkpoint` from the contents of one file.

    Args:
        kind: the layout's name; becomes `Checkpoint.kind`.
        path: the file.
        where: the file as the user named it, for errors.
        state: the file's contents, with its tensors under diffusers' names.
        stored: the result of `decode_metadata` for the file's strings.
        config: the config of the `SanaTransformer2DModel`.

    Raises:
        InputError: it is not a complete SANA transformer, or is damaged.
    """
    full = check_config(config, where)
    stamp = Stamp.of(os.stat(path))
    check_tensors({name: ref.shape for name, ref in state.tensors.items()}, full, where)
    if sum(ref.nbytes for ref in state.tensors.values()) > stamp.size:
        # tensors that share bytes: a small file could describe an enormous amount of work
        raise InputError(f"{where} is damaged: its tensors share their bytes")
    return Checkpoint(
        ref=where,
        path=path,
        kind=kind,
        tensors=state.tensors,
        config=full,
        components=resolve_components(stored.components, path.parent),
        sampling=stored.sampling,
        lineage=stored.lineage,
        metadata=state.strings,
        headers=((path, 0),),
        stamps={path: stamp},
        notes=state.notes,
    )
