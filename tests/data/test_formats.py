"""A data format is one class and one line: what the commands, the docs and the registry know of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from sanactl.data.formats.base import DataFormat
from sanactl.data.formats.registry import FORMATS
from sanactl.data.references import Reference
from sanactl.data.settings import DataSettings
from sanactl.data.tables import NumberedExamples
from sanactl.errors import InputError
from tests.pictures import write_folder
from tests.program import Program

SHADES = {"dark": 40, "grey": 128, "light": 220, "white": 255}


class ToyFormat(DataFormat):
    """A text file with the name of a shade on each line."""

    name = "shades"
    suffixes = (".toy",)

    def recognises(self, reference: Reference) -> str | None:
        return next(iter(reference.ending(".toy")), None)

    def open(self, reference: Reference, settings: DataSettings) -> NumberedExamples:
        text = (reference.root / reference.files[0]).read_text()
        shades = text.split()

        def example(row: int) -> tuple[np.ndarray, str]:
            if shades[row] not in SHADES:
                raise InputError(f"{reference.name}, line {row + 1}: {shades[row]} is no shade")
            return np.full((64, 64, 3), SHADES[shades[row]], np.uint8), f"a {shades[row]} square"

        return NumberedExamples(reference.name, len(shades), text, example)


@pytest.fixture
def toy(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("sanactl.data.formats.registry.FORMATS", [*FORMATS, ToyFormat()])
    (place / "x.toy").write_text("dark\ngrey\nlight\nwhite\n")
    return place


FEW = ("--steps", "2", "-b", "4")


def test_a_format_of_one_class_trains_and_is_encoded(toy: Path, sanactl: Program) -> None:
    (record,) = sanactl("finetune", "tiny.st", "--data", "x.toy", *FEW, "-o", "a.st")
    assert record["steps"] == 2
    assert "using 4 examples of x.toy (images with captions)" in sanactl.said
    before, after = load_file("tiny.st"), load_file("a.st")
    assert any((before[name] != after[name]).any() for name in after)
    (record,) = sanactl("encode", "tiny.st", "--data", "x.toy", "-o", "latents")
    assert record["examples"] == 4
    sanactl("finetune", "tiny.st", "--data", "latents", *FEW, "-o", "b.st")
    one, two = (
        [json.loads(line)["loss"] for line in Path(f"{n}.train.jsonl").read_text().splitlines()] for n in "ab"
    )
    assert one == pytest.approx(two, rel=1e-4)
    sanactl("finetune", "tiny.st", "--data", "x.toy", "--buckets", *FEW, "-o", "c.st")


def test_its_faults_are_told_as_those_of_others(toy: Path, sanactl: Program) -> None:
    command = ("finetune", "tiny.st", *FEW, "--data")
    (toy / "y.toy").write_text("dark\ngold\n")
    assert "y.toy, line 2: gold is no shade; --max-bad N skips" in sanactl.fails(*command, "y.toy")
    assert "shades/z.toy: no such file" in sanactl.fails(*command, "shades/z.toy")
    folder = write_folder(toy / "shots", 2)
    (folder / "metadata.jsonl").unlink()
    (folder / "z.toy").write_text("dark")
    assert "shots: holds 000.png and z.toy: which kind is the data?" in sanactl.fails(*command, "shots")


def test_formats_are_told_apart_by_what_they_are() -> None:
    assert len({type(format) for format in FORMATS}) == len(FORMATS)
    page = (Path(__file__).parents[2] / "docs/data.md").read_text(encoding="utf-8")
    assert [format.name for format in FORMATS if format.name not in page] == []
