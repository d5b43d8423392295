"""Files of `torch.save`: whatever training programs leave in them, and what somebody hostile could."""

from __future__ import annotations

import os
import struct
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sanactl.bench.synthetic import synthetic_checkpoint
from sanactl.checkpoint.layouts.pickles import INERT, MAX_OPCODES, PickleError, load
from sanactl.checkpoint.open import open_checkpoint
from sanactl.errors import InputError
from sanactl.files.safetensors import read_header
from tests.program import Program

Tensors = dict[str, torch.Tensor]


@pytest.fixture
def native(place: Path, sanactl: Program) -> Tensors:
    """The tensors of base.st in the native layout; base.st and its config.json (c.json) lie beside."""
    synthetic_checkpoint(place / "base.st")
    sanactl("convert", "base.st", "-o", "n.pth")
    (place / "c.json").write_text(read_header(place / "base.st").metadata["config"])
    return torch.load(place / "n.pth", weights_only=True)["state_dict"]


@pytest.mark.parametrize(
    "prefix",
    [
        "module.",
        "_orig_mod.",
        "module._orig_mod.",
        "model.",
        "model.diffusion_model.",
        "_fsdp_wrapped_module.",
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_prefixes_of_training_programs_are_taken_away(
    place: Path, sanactl: Program, native: Tensors, prefix: str, suffix: str
) -> None:
    renamed = {prefix + name: tensor for name, tensor in native.items()}
    torch.save({"state_dict": renamed}, place / "x.pth")
    save_file(renamed, place / "x.safetensors")
    sanactl("convert", f"x{suffix}", "--config", "c.json", "-o", "back.st")
    assert load_file(place / "back.st").keys() == load_file(place / "base.st").keys()
    assert all(
        torch.equal(t, load_file(place / "base.st")[n]) for n, t in load_file(place / "back.st").items()
    )


@pytest.mark.parametrize("name", ["x.pth", "x.safetensors"])
def test_diffusers_names_with_blocks_compiled_one_by_one(place: Path, sanactl: Program, name: str) -> None:
    synthetic_checkpoint(place / "base.st")
    renamed = {
        "module." + n.replace("transformer_blocks.1.", "transformer_blocks.1._orig_mod."): t
        for n, t in load_file(place / "base.st").items()
    }
    torch.save(renamed, place / "x.pth")
    save_file(renamed, place / "x.safetensors")
    (place / "config.json").write_text(read_header(place / "base.st").metadata["config"])
    sanactl("convert", name, "-o", "back.st")
    assert (
        open_checkpoint(place / "back.st").num_parameters == open_checkpoint(place / "base.st").num_parameters
    )
    assert "--components" in sanactl.fails("importance", name)  # it opens, and is a transformer alone
    with pytest.raises(InputError, match="prefixes"):
        open_checkpoint("x.safetensors")


def test_two_names_that_become_one_are_refused(place: Path, sanactl: Program, native: Tensors) -> None:
    torch.save({"state_dict": {**native, **{"module." + n: t for n, t in native.items()}}}, place / "x.pth")
    assert "two tensors called" in sanactl.fails("inspect", "x.pth")


def test_the_weights_are_found_under_the_usual_names(place: Path, sanactl: Program, native: Tensors) -> None:
    other = {name: tensor + 1 for name, tensor in native.items()}
    for key in ("state_dict", "model_state_dict", "model", "module"):
        torch.save({key: native, "state_dict_ema": other, "epoch": 3}, place / "x.pth")
        sanactl("convert", "x.pth", "--config", "c.json", "-o", "back.st", "--force")
        assert "also holds an average of the weights (state_dict_ema)" in sanactl.said
        assert torch.equal(load_file(place / "back.st")["proj_out.bias"], native["final_layer.linear.bias"])
    for key in ("state_dict_ema", "ema", "model_ema"):
        torch.save({key: other}, place / "x.pth")
        sanactl("convert", "x.pth", "--config", "c.json", "-o", "back.st", "--force")
        assert f"holds only the average of the weights ({key})" in sanactl.said
        assert torch.equal(load_file(place / "back.st")["proj_out.bias"], other["final_layer.linear.bias"])


FLOAT8 = [torch.float8_e4m3fn, torch.float8_e5m2]


@pytest.mark.parametrize("kind", FLOAT8)
def test_eight_bits_go_there_and_back(
    place: Path, sanactl: Program, native: Tensors, kind: torch.dtype
) -> None:
    torch.save({"state_dict": {name: tensor.to(kind) for name, tensor in native.items()}}, place / "x.pth")
    sanactl("convert", "x.pth", "--config", "c.json", "-o", "x.st")
    wanted = {name: t.to(kind).view(torch.uint8) for name, t in load_file(place / "base.st").items()}
    found = load_file(place / "x.st")
    assert all(torch.equal(found[name].view(torch.uint8), wanted[name]) for name in wanted)
    sanactl("convert", "x.st", "-o", "back.pth")
    back = torch.load(place / "back.pth", weights_only=True)["state_dict"]
    assert all(
        torch.equal(back[n].view(torch.uint8), t.to(kind).view(torch.uint8)) for n, t in native.items()
    )
    sanactl("convert", "back.pth", "-o", "again.st")
    assert (place / "again.st").read_bytes() == (place / "x.st").read_bytes()


def test_a_training_checkpoint_with_all_that_lies_beside(
    place: Path, sanactl: Program, native: Tensors
) -> None:
    model = torch.nn.Linear(4, 4)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(4)).sum().backward()
    optimizer.step()
    everything: dict[str, Any] = {
        "state_dict": torch.nn.ParameterDict(
            {k.replace(".", "/"): v for k, v in native.items()}
        ).state_dict(),
        "optimizer": optimizer.state_dict(),
        "rng_state": {"torch": torch.get_rng_state(), "python": (3, (1, 2), None)},
        "step": 10**20,
        "names": {("a", "b"): 1, frozenset({1}): 2, 1.5: 3},
        "when": (float("nan"), True, b"bytes", "text\u2028", {1, 2}),
        "path": Path("out"),
    }
    everything["state_dict"] = {k.replace("/", "."): v for k, v in everything["state_dict"].items()}
    for protocol in (2, 3, 4, 5):
        torch.save(everything, place / "x.pth", pickle_protocol=protocol)
        sanactl("convert", "x.pth", "--config", "c.json", "-o", "back.st", "--force")
        assert (place / "back.st").stat().st_size > 100_000


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


TENSOR = (
    b"ctorch._utils\n_rebuild_tensor_v2\n((" + text("storage") + b"ctorch\nHalfStorage\n" + text("0") + text("cpu")
    + b"K\x04tQK\0(K\x04t(K\x01t\x89ccollections\nOrderedDict\n)RtR"
)  # fmt: skip


def pth(path: Path, program: bytes, compression: int = zipfile.ZIP_STORED, **extra: bytes) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", program)
        for name, data in {"byteorder": b"little", "data/0": bytes(16), **extra}.items():
            archive.writestr(f"archive/{name}", data)
    return path


def state_of(key: bytes, more: bytes = b"") -> bytes:
    return b"\x80\x02}(" + text("state_dict") + b"}(" + key + TENSOR + b"u" + more + b"u."


BOMBS = {
    "tuples as a key": state_of(b"K\x01" + b"2\x86" * 40),
    "frozen sets": state_of(text("a"), text("x") + b"(K\x01" + b"(22\x91" * 100 + b"t"),
    "a dict of itself": b"}q\0(" + text("state_dict") + b"h\0u.",
    "lists of themselves": b"]q\0" + b"(h\0h\0e" * 10_000 + b".",
    "a deep tuple": state_of(text("a"), text("x") + b")" + b"\x85" * 200_000),
    "a long number": state_of(text("a"), text("x") + b"\x8b\xff\xff\xff\x7f"),
    "a number in digits": state_of(text("a"), text("x") + b"L" + b"9" * 4000 + b"L\n"),
    "a text of 8 EiB": b"\x8d" + b"\xff" * 8,
    "a huge memo": b"Nr\xff\xff\xff\xff" * 1000 + b".",
    "nothing but steps": b"N0" * (MAX_OPCODES // 2 + 1) + b".",
    "an ordered dict of pairs": b"]q\0((K\x01K\x01te0" + b"ccollections\nOrderedDict\n(h\0tR0" * 1000 + b"}.",
    "a shape of shapes": state_of(text("a"), text("x") + b"ctorch\nSize\n((tttR"),
    "a call without an end": b"ctorch._tensor\n_rebuild_from_type_v2\nq\0h\0(h\0NNNtN(NttR.",
    "layers": state_of(
        text("blocks.0.x"),
        text("sanactl") + b"}(" + text("config") + text('{"_class_name":"SanaTransformer2DModel","num_layers":1000000000}') + b"u",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(BOMBS))
def test_a_bomb_is_one_line_and_quick(place: Path, sanactl: Program, name: str) -> None:
    pth(place / "x.pth", BOMBS[name])
    started = time.process_time()
    line = sanactl.fails("inspect", "x.pth")
    assert time.process_time() - started < 4
    assert "x.pth" in line
    assert len(line) < 300


def test_nothing_is_inflated(place: Path, sanactl: Program) -> None:
    pth(place / "x.pth", state_of(text("a")), zipfile.ZIP_DEFLATED, byteorder=bytes(50 << 20))
    assert "compressed" in sanactl.fails("inspect", "x.pth")
    pth(place / "x.pth", state_of(text("a")), byteorder=b"little" + bytes(1000))
    assert "at most 16" in sanactl.fails("inspect", "x.pth")
    with zipfile.ZipFile(place / "x.pth", "w") as archive:
        for number in range(3000):
            archive.writestr(f"archive/{number}" + "x" * 6000, b"")
    assert "more files than any checkpoint" in sanactl.fails("inspect", "x.pth")


def test_what_is_no_regular_file_or_a_pointer(place: Path, sanactl: Program) -> None:
    os.mkfifo(place / "pipe.pth")
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 3240368\n"
    for name in ("lfs.pth", "lfs.st", "config.json"):
        (place / name).write_text(pointer)
        if name != "config.json":
            assert "git lfs pull" in sanactl.fails("inspect", name)
    assert sanactl.fails("inspect", "pipe.pth")
    (place / "diffusion_pytorch_model.safetensors").write_text(pointer)
    assert "git lfs pull" in sanactl.fails("inspect", ".")
    sanactl("convert", "tiny.st", "--pipeline", "--copy", "-o", "pipe")
    (place / "pipe" / "text_encoder" / "model.safetensors").write_text(pointer)
    assert "text_encoder" in sanactl.fails("convert", "pipe", "--pipeline", "-o", "g")
    sanactl("importance", "pipe", "--prompts", "shapes", "--steps", "1", code=1)
    assert "git lfs pull" in sanactl.said


def refuse(module: str, name: str) -> Any:
    raise InputError(f"{module}.{name}")


def test_the_machine_reads_what_pickle_writes() -> None:
    import pickle

    value = {
        "a": [1, -(2**70), 2.5, None, True, "ü" * 300, b"x" * 300, bytearray(b"y")],
        3: ((), (1,), (1, 2, 3, 4)),
    }
    for protocol in range(2, 6):
        found = load(pickle.dumps(value, protocol), lambda *name: bytearray, lambda parts: parts)
        assert found == value
    assert load(b"(lp0\nI1\naI01\naF2.5\naVtext\na(dp1\ng0\n.", refuse, refuse) == [1, True, 2.5, "text"]
    assert load(pickle.dumps({1, 2}, 4), refuse, refuse) is INERT
    for data in (
        b"",
        b"N",
        b"t.",
        b"0.",
        b"h\0.",
        b"}K\x01s.",
        b"NK\x01K\x02s.",
        b"\xff.",
        b"Nb.",
        b"K\x01)R.",
    ):
        with pytest.raises(PickleError):
            load(data, refuse, refuse)
