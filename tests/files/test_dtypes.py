"""The table of dtypes, held against torch and against what safetensors writes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sanactl.files.dtypes import DTYPES, WEIGHT_DTYPES, Dtype, find_dtype
from sanactl.files.safetensors import read_header


@pytest.mark.filterwarnings("ignore:TypedStorage")
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=lambda dtype: dtype.name)
def test_names_and_sizes_are_those_of_torch_and_safetensors(dtype: Dtype, tmp_path: Path) -> None:
    kind = getattr(torch, dtype.torch)
    assert kind.itemsize == dtype.nbytes
    save_file({"x": torch.zeros(3, dtype=kind)}, tmp_path / "x.st")
    assert read_header(tmp_path / "x.st").tensors["x"].dtype == dtype.name
    if dtype.storage is not None:
        assert getattr(torch, dtype.storage).dtype == kind


def test_names_of_people_are_understood() -> None:
    assert list(WEIGHT_DTYPES) == ["fp32", "bf16", "fp16"]
    for name, text in {
        "BF16": "bf16 BFloat16 BF16",
        "F16": "fp16 half float16",
        "F32": "fp32 float32",
    }.items():
        assert {getattr(find_dtype(word), "name", word) for word in text.split()} == {name}
    assert [find_dtype(text) for text in ("fp64", "float8_e4m3fn", "", "int8", "f32 ")] == [None] * 5
