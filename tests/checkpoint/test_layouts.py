"""A new layout of checkpoints is one module and one line: here the module is a part of this test."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from sanactl.checkpoint.decode import decode_metadata
from sanactl.checkpoint.layouts.entry import Chunks, Layout, NamedTensor, StateDict, opened
from sanactl.checkpoint.layouts.registry import LAYOUTS
from sanactl.checkpoint.open import open_checkpoint
from sanactl.checkpoint.sana import expected_tensors
from sanactl.checkpoint.spans import TensorRef
from sanactl.checkpoint.table import Checkpoint
from sanactl.errors import InputError
from sanactl.files.safetensors import encode_header, read_header
from tests.program import Program

# Queries, keys and values of self-attention lie one after the other here, and other names are written backwards.
FUSED = ("attn1.to_q.weight", "attn1.to_k.weight", "attn1.to_v.weight")


def toy_names(config: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    names: dict[str, tuple[str, ...]] = {}
    for name in expected_tensors(config):
        if name.endswith(FUSED):
            block = name.removesuffix(next(filter(name.endswith, FUSED)))
            names[f"{block}qkv"] = tuple(block + part for part in FUSED)
        else:
            names[".".join(reversed(name.split(".")))] = (name,)
    return names


def open_toy(path: Path, where: str, config: Mapping[str, Any] | None) -> Checkpoint:
    header = read_header(path)
    stored = decode_metadata(header.metadata, where)
    config = config or stored.config
    if config is None:
        raise InputError(f"{where} is a toy without a config")
    tensors: dict[str, TensorRef] = {}
    for joined, names in toy_names(config).items():
        info = header.tensors[joined]
        ref = TensorRef(path, info.offset, info.nbytes, info.dtype, info.shape)
        rows = ref.shape[0] // len(names)
        for number, name in enumerate(names):
            tensors[name] = ref.rows(number * rows, (number + 1) * rows) if len(names) > 1 else ref
    return opened("toy", path, where, StateDict(tensors, header.metadata), stored, config)


def write_toy(
    path: Path,
    tensors: Iterable[NamedTensor],
    strings: Mapping[str, str],
    chunks: Chunks,
) -> None:
    header, places = encode_header(tensors, strings)
    with path.open("wb") as file:
        file.write(header)
        for name in places:
            file.writelines(chunks(name))


TOY = Layout(
    "toy",
    "a toy",
    reads=(".toy",),
    open=open_toy,
    writes=(".toy",),
    names=lambda checkpoint: toy_names(checkpoint.config),
    write=write_toy,
)


@pytest.fixture
def folder(tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a checkpoint, where toys can be read and written."""
    monkeypatch.setitem(LAYOUTS, TOY.name, TOY)  # the one line
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.st").write_bytes(tiny_file.read_bytes())
    return tmp_path


def test_a_toy_layout_is_written_read_and_converted_back(folder: Path, sanactl: Program) -> None:
    (written,) = sanactl("convert", "tiny.st", "-o", "tiny.toy")
    names = read_header("tiny.toy").tensors
    assert {"transformer_blocks.0.qkv", "weight.proj.patch_embed"} <= set(names)
    (seen,) = sanactl("inspect", "tiny.toy")
    (known,) = sanactl("inspect", "tiny.st")
    assert seen["format"] == "toy"
    assert (seen["digest"], seen["blocks"], seen["parameters"]) == (
        known["digest"], known["blocks"], known["parameters"],
    )  # fmt: skip
    assert written["digest"] == known["digest"]
    sanactl("convert", "tiny.toy", "-o", "back.st")
    assert (folder / "back.st").read_bytes() == (folder / "tiny.st").read_bytes()
    sanactl("convert", "tiny.toy", "-o", "tiny.pth")
    sanactl("convert", "tiny.pth", "-o", "again.toy")
    assert (folder / "again.toy").read_bytes() == (folder / "tiny.toy").read_bytes()


def test_surgery_reads_a_toy_layout_and_writes_it_by_convert(folder: Path, sanactl: Program) -> None:
    sanactl("convert", "tiny.st", "-o", "tiny.toy")
    sanactl("grow", "tiny.st", "--to", "5", "-o", "one.st")
    sanactl("grow", "tiny.toy", "--to", "5", "-o", "other.st")
    assert read_header("one.st").tensors == read_header("other.st").tensors
    start = read_header("one.st").data_start, read_header("other.st").data_start
    one, other = Path("one.st").read_bytes()[start[0] :], Path("other.st").read_bytes()[start[1] :]
    assert one == other
    with pytest.raises(InputError, match="is a toy; sanactl convert"):
        open_checkpoint("tiny.toy")
    assert "grow writes no .toy" in sanactl.fails("grow", "tiny.st", "--to", "5", "-o", "x.toy", code=2)
    assert "a .toy file" in sanactl.fails("convert", "tiny.st", "-o", "x.gguf", code=2)


def test_a_toy_checkpoint_draws_what_its_source_draws(folder: Path, sanactl: Program) -> None:
    sanactl("convert", "tiny.st", "-o", "tiny.toy")
    drawn = [
        sanactl("sample", name, "-n", "1", "--limit", "1", "--steps", "2", "-o", target)
        for name, target in (("tiny.st", "one"), ("tiny.toy", "other"))
    ]
    one, other = (Path(records[0]["path"]).read_bytes() for records in drawn)
    assert one == other
