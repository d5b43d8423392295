"""Opening and writing the native layout: .pth files, and safetensors files with native names or with prefixes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sanactl.checkpoint.config import SanaConfig, check_config
from sanactl.checkpoint.decode import decode_metadata
from sanactl.checkpoint.folder import read_json
from sanactl.checkpoint.kinds import describe_kind
from sanactl.checkpoint.layouts.entry import Chunks, Layout, NamedTensor, StateDict, opened
from sanactl.checkpoint.layouts.native import DROPPED, implied_config, native_names, plain_names, unfuse
from sanactl.checkpoint.table import Checkpoint, TensorRef
from sanactl.errors import InputError
from sanactl.files.safetensors import MAX_HEADER, read_header

__all__ = ["NATIVE", "NATIVE_SAFETENSORS"]


def _open(path: Path, where: str, config: Mapping[str, Any] | None = None) -> Checkpoint:
    """Open a file whose tensors do not have diffusers' names, and give them those names.

    Args:
        path: a .pth, in the native layout or diffusers' own; or a .safetensors in the native one, or with prefixes.
        where: what the user named.
        config: diffusers config; default what sanactl stored in the file, else the config.json beside a file of
            diffusers' layout, else `implied_config`.

    Returns:
        a checkpoint of kind "native". `metadata["sanactl.dropped"]` names the tensors left out, separated by commas.
    """
    state = _read_pickle(path) if path.suffix.lower() in _PICKLES else _read_safetensors(path)
    tensors = plain_names(state.tensors, where)
    stored = decode_metadata(state.strings, where)
    native = any(name.startswith("blocks.") for name in tensors)
    known = config or stored.config
    if known is None and not native and (path.parent / "config.json").is_file():
        known = read_json(path.parent / "config.json")
    full = check_config(known or implied_config(tensors, where), where)
    named, dropped = _in_diffusers(tensors, full, where, native)
    strings = {**state.strings, **({"sanactl.dropped": ", ".join(dropped)} if dropped else {})}
    return opened(NATIVE.name, path, where, StateDict(named, strings, state.notes), stored, full)


def _read_pickle(path: Path) -> StateDict:
    from sanactl.checkpoint.layouts.pth import read_pth  # imported here, because few commands read a .pth

    return read_pth(path)


def _write_pth(
    path: Path, tensors: Iterable[NamedTensor], strings: Mapping[str, str], chunks: Chunks
) -> None:
    from sanactl.checkpoint.layouts.pth_write import write_pth

    write_pth(path, tensors, strings, chunks)


def _read_safetensors(path: Path) -> StateDict:
    header = read_header(path)
    return StateDict(
        {n: TensorRef(path, i.offset, i.nbytes, i.dtype, i.shape) for n, i in header.tensors.items()},
        header.metadata,
    )


def _in_diffusers(
    tensors: Mapping[str, TensorRef], config: SanaConfig, where: str, native: bool
) -> tuple[dict[str, TensorRef], list[str]]:
    """Tensors under diffusers' names, and the names of those that have no counterpart there."""
    if not native:
        return {n: ref for n, ref in tensors.items() if not DROPPED.match(n)}, list(
            filter(DROPPED.match, tensors)
        )
    if not any(name.startswith("blocks.0.") for name in tensors):
        raise InputError(f"{where} is not a native SANA checkpoint: {describe_kind(tensors)}")
    return unfuse(tensors, config, where)


def _has_native_names(path: Path) -> bool:
    """Whether a safetensors file's header has native names, or a training program's prefixes."""
    try:
        with open(path, "rb") as file:  # `read_header` checks the header later
            head = file.read(min(int.from_bytes(file.read(8), "little"), MAX_HEADER))
    except OSError:
        return False
    return any(
        name in head for name in (b'blocks.0.cross_attn.kv_linear.weight"', b"_orig_mod.", b'"module.')
    )


def _names_of(checkpoint: Checkpoint) -> dict[str, tuple[str, ...]]:
    """`native_names` of a checkpoint that the native layout can hold.

    Raises:
        InputError: it cannot.
    """
    config, where = checkpoint.config, checkpoint.ref
    if config.qk_norm not in (None, "rms_norm_across_heads"):
        raise InputError(f"{where}: the native layout has no qk_norm {config.qk_norm}")
    if not config.width == config.cross_width == config.cross_attention_dim:
        raise InputError(
            f"{where}: the native layout has one width, and here attention is {config.width}, cross-attention"
            f" {config.cross_width} and its input {config.cross_attention_dim} wide"
        )
    return native_names(config)


_PICKLES = (".pth", ".pt", ".ckpt", ".bin")

NATIVE = Layout(
    "native",
    "a pickled checkpoint",
    reads=_PICKLES,
    open=_open,
    writes=(".pth",),
    names=_names_of,
    write=_write_pth,
)
NATIVE_SAFETENSORS = Layout(
    "native safetensors",
    "a checkpoint with native names",
    reads=(".st", ".safetensors"),
    open=_open,
    holds=_has_native_names,
)
