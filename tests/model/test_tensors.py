"""Weights lie aligned in memory of the process's own, wherever the file has them and whatever becomes of it."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sanactl.checkpoint.builtin import asset
from sanactl.checkpoint.copy import Sources
from sanactl.checkpoint.open import open_checkpoint
from sanactl.errors import InputError
from sanactl.files.safetensors import DTYPE_BYTES, read_header
from sanactl.judging.backends.vlm import VlmJudge
from sanactl.model.loading import load_components, load_transformer
from sanactl.model.tensors import (
    ALIGNMENT,
    TORCH_DTYPES,
    TensorFile,
    aligned,
    own_memory,
    read_tensors,
    steady_files,
)
from tests.program import Program

KINDS = (torch.float32, torch.float16)  # the built-in weights are fp16: one is a cast, the other is not


def shifted(source: Path, target: Path, by: int) -> Path:
    """A copy of a safetensors file whose data begin `by` bytes after a multiple of 64."""
    raw = source.read_bytes()
    header = read_header(source)
    text = json.dumps(json.loads(raw[8 : header.data_start])).encode()
    text += b" " * (-(8 + len(text)) % 64 + by)
    target.write_bytes(len(text).to_bytes(8, "little") + text + raw[header.data_start :])
    return target


def tensors_of(module: torch.nn.Module) -> Iterator[torch.Tensor]:
    yield from module.parameters()
    yield from module.buffers()


def is_mapped(path: Path) -> bool:
    return str(path.resolve()) in Path("/proc/self/maps").read_text()


@pytest.fixture
def odd(place: Path) -> Path:
    """The built-in text encoder, VAE and judge, and a checkpoint, all of whose data lie 8 bytes off."""
    for part in ("text_encoder", "tokenizer", "vae", "scheduler", "judge"):
        shutil.copytree(asset(part), place / "world" / part)
    for file in (place / "world").rglob("*.safetensors"):
        shifted(file, file.with_suffix(".new"), 8).rename(file)
    shifted(place / "tiny.st", place / "odd.st", 8)
    return place


def test_every_dtype_is_read_as_the_library_reads_it(tmp_path: Path) -> None:
    assert set(TORCH_DTYPES) == set(DTYPE_BYTES)
    values = torch.arange(24).reshape(4, 6) % 2
    kinds = {name: kind for name, kind in TORCH_DTYPES.items() if kind.itemsize == DTYPE_BYTES[name]}
    assert kinds == TORCH_DTYPES
    tensors = {"scalar": torch.tensor(2.5), "empty": torch.zeros(0, 3)}
    tensors |= {name: values.to(kind) for name, kind in kinds.items()}
    save_file(tensors, tmp_path / "x.safetensors", {"format": "pt"})
    theirs, ours = load_file(tmp_path / "x.safetensors"), read_tensors(tmp_path / "x.safetensors")
    assert theirs.keys() == ours.keys()
    for name, tensor in ours.items():
        assert (tensor.dtype, tensor.shape) == (theirs[name].dtype, theirs[name].shape)
        assert tensor.reshape(-1).view(torch.uint8).equal(theirs[name].reshape(-1).view(torch.uint8))
        assert tensor.data_ptr() % ALIGNMENT == 0
    file = TensorFile(tmp_path / "x.safetensors")
    assert file.rows("F16", 1, 3).equal(values[1:3].half())
    with pytest.raises(InputError, match="holds no rows 1 to 5 of F16"):
        file.rows("F16", 1, 5)


@pytest.mark.parametrize("dtype", KINDS)
def test_all_that_is_loaded_is_aligned_and_no_longer_the_file(odd: Path, dtype: torch.dtype) -> None:
    checkpoint = open_checkpoint("odd.st")
    world = {p: {"source": str(odd / "world"), "subfolder": p} for p in checkpoint.components}
    found = load_components(replace(checkpoint, components=world), dtype=dtype)
    judge = VlmJudge.load(
        str(odd / "world/judge"), "cpu", {torch.float32: "fp32", torch.float16: "fp16"}[dtype]
    )
    for model in (load_transformer(checkpoint, dtype=dtype), found.text_encoder, found.vae, judge.model):
        assert all(t.data_ptr() % ALIGNMENT == 0 for t in tensors_of(model)), type(model)
    if sys.platform == "linux":
        assert not any(is_mapped(f) for f in [odd / "odd.st", *(odd / "world").rglob("*.safetensors")])


def test_what_a_model_computes_does_not_depend_on_the_length_of_the_header(place: Path) -> None:
    torch.manual_seed(0)
    inputs = {
        "hidden_states": torch.randn(2, 8, 8, 8),
        "encoder_hidden_states": torch.randn(2, 5, 96),
        "timestep": torch.tensor([500.0, 20.0]),
    }
    results = []
    for by in (0, 8, 24, 56):
        model = load_transformer(open_checkpoint(shifted(place / "tiny.st", place / f"{by}.st", by)))
        with torch.no_grad():
            results.append(model(**inputs).sample)
    assert all(result.equal(results[0]) for result in results)


def test_tensors_that_are_shared_stay_so() -> None:
    model = torch.nn.ModuleDict({"a": torch.nn.Linear(4, 4), "b": torch.nn.Linear(4, 4)})
    model["b"].weight = model["a"].weight
    for part in model.values():
        part.register_buffer("table", torch.ones(3))
    model["b"].table = model["a"].table
    before = {name: (t.clone(), t.data_ptr()) for name, t in model.state_dict().items()}
    own_memory(model)
    assert model["a"].weight is model["b"].weight
    assert model["a"].table is model["b"].table
    for name, tensor in model.state_dict().items():
        assert tensor.equal(before[name][0])
        assert tensor.data_ptr() != before[name][1]


def test_what_lies_off_alignment_is_copied_and_nothing_else() -> None:
    whole = torch.arange(100.0)
    assert aligned(whole) is whole
    assert aligned(whole[2:]).data_ptr() % ALIGNMENT == 0
    assert aligned(whole[2:]).equal(whole[2:])


def test_a_file_that_shrinks_or_changes_is_one_clear_line(place: Path) -> None:
    file = TensorFile(place / "tiny.st")
    name = list(file.refs)[-1]
    checkpoint = open_checkpoint("tiny.st")
    os.truncate("tiny.st", 30_000)
    with pytest.raises(InputError, match=r"tiny\.st"):
        file.read(name)
    with pytest.raises(InputError, match=r"tiny\.st changed while it was being read"):
        load_transformer(checkpoint)
    with pytest.raises(InputError, match=r"gone\.st"):
        read_tensors(place / "gone.st")


@pytest.mark.parametrize("part", ["text_encoder", "vae"])
def test_a_file_that_changes_while_another_library_reads_it_is_noticed(odd: Path, part: str) -> None:
    weights = next((odd / "world" / part).glob("*.safetensors"))
    with pytest.raises(InputError, match=rf"{weights.name} changed"), steady_files(str(weights.parent)):
        os.utime(weights, (0, 0))
    with pytest.raises(InputError, match=rf"{weights.name} changed"), steady_files(str(weights.parent)):
        weights.unlink()
    with steady_files("owner/name") as options:  # what lies in the Hub's cache does not change
        assert options == {}


def test_a_checkpoint_that_is_cut_short_while_it_is_used(place: Path, sanactl: Program) -> None:
    """A copy in place over weights that are in use neither ends the process nor changes them."""
    model = load_transformer(open_checkpoint("tiny.st"), dtype=torch.float16)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    os.truncate("tiny.st", 8)
    assert all(tensor.equal(before[name]) for name, tensor in model.state_dict().items())
    assert "tiny.st" in sanactl.fails("sample", "tiny.st", "--prompts", "a red circle")


@pytest.mark.parametrize(
    "arguments",
    [
        ["sample", "tiny.st", "--prompts", "prompts.txt"],
        ["importance", "tiny.st", "--prompts", "prompts.txt"],
        ["finetune", "tiny.st", "--steps", "1", "-b", "2"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_checkpoint_that_is_cut_short_while_a_command_loads_it(
    place: Path, sanactl: Program, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    (place / "prompts.txt").write_text("a red circle\n")
    real, left = Sources.read_into, [3]

    def cut(self: Sources, file: Path, offset: int, out: memoryview) -> None:
        left[0] -= 1
        if left[0] == 0:
            os.truncate("tiny.st", 8)
        real(self, file, offset, out)

    monkeypatch.setattr(Sources, "read_into", cut)
    assert sanactl(*arguments, code=1) == []
    assert "Traceback" not in sanactl.said and "unexpected" not in sanactl.said
    last = sanactl.said.splitlines()[-1]
    assert last.startswith("sanactl: ") and "tiny.st ended early, at byte" in last
    made = {path.name for path in place.rglob("*") if path.suffix in (".st", ".png", ".jsonl", ".tmp")}
    assert made <= {"tiny.st", "metadata.jsonl", "journal.jsonl"}  # `sample` lays out its folder first
