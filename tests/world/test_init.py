"""`init`: the built-in checkpoints as they are, and random ones that are a function of their seed."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.numpy import load_file

from sanactl.checkpoint.builtin import asset
from sanactl.checkpoint.open import open_checkpoint
from tests.program import Program


@pytest.mark.parametrize(("what", "file"), [("shapes", "base.st"), ("shapes-grown", "grown.st")])
def test_the_built_in_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sanactl: Program, what: str, file: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (record,) = sanactl("init", what)
    assert record["path"] == file
    assert Path(file).read_bytes() == asset(file).read_bytes()
    sanactl("init", what)
    assert "there already" in sanactl.said
    Path(file).write_text("mine")
    other = "shapes" if what == "shapes-grown" else "shapes-grown"
    assert "already exists" in sanactl.fails("init", other, "-o", file, code=2)


def test_random_weights_are_a_function_of_the_seed(place: Path, sanactl: Program) -> None:
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        sanactl("init", "--scratch", "--blocks", "2", "--seed", seed, "-o", f"{name}.st")
    a, b, c = ((place / f"{x}.st").read_bytes() for x in "abc")
    assert a == b
    assert a != c
    weights = load_file("a.st")
    # An output of zero: the model begins with the mean velocity.
    assert not weights["proj_out.weight"].any()
    assert weights["transformer_blocks.1.attn1.to_q.weight"].std() > 0
    made = open_checkpoint("a.st")
    assert made.num_blocks == 2
    assert set(made.components) == {"text_encoder", "tokenizer", "vae", "scheduler"}
    assert made.lineage[-1]["command"] == "init"


def test_the_shape_of_another_checkpoint(place: Path, sanactl: Program) -> None:
    sanactl("init", "tiny.st", "--scratch")
    made, tiny = open_checkpoint("tiny-scratch.st"), open_checkpoint("tiny.st")
    assert (made.config, made.components, made.sampling) == (tiny.config, tiny.components, tiny.sampling)
    assert made.num_parameters == tiny.num_parameters
    assert made.lineage[-1]["arguments"]["like"]["digest"] == tiny.digest


def test_a_world_of_ones_own(place: Path, sanactl: Program) -> None:
    sanactl("init", "--scratch", "--blocks", "1", "--world", str(asset("")), "-o", "w.st")
    sanactl("sample", "w.st", "-n", "1", "--limit", "1", "--steps", "1")


def test_options_that_do_not_go_together(place: Path, sanactl: Program) -> None:
    assert "--scratch" in sanactl.fails("init", "shapes", "--blocks", "2", "-o", "x.st", code=2)
    assert "checkpoint already" in sanactl.fails("init", "tiny.st", code=2)
    assert "gone.st" in sanactl.fails("init", "gone.st", "--scratch")


@pytest.mark.parametrize("options", [["shapes"], ["shapes", "--scratch"], ["tiny.st", "--scratch"]])
def test_a_name_that_promises_another_format(place: Path, sanactl: Program, options: list[str]) -> None:
    for name in ("x.pth", "x.bin", "folder/"):
        said = sanactl.fails("init", *options, "-o", name, code=2)
        assert "init writes a .st or .safetensors file" in said
        assert "sanactl convert" in said
    sanactl("init", *options, "-o", "x.safetensors")
