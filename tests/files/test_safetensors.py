"""The header reader against the safetensors library, hand-made faults, and random bytes."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save, save_file

from sanactl.errors import InputError
from sanactl.files.safetensors import DTYPE_BYTES, MAX_HEADER, encode_header, read_header

TENSORS: dict[str, np.ndarray] = {
    "b": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a": np.arange(5, dtype=np.float16),
    "scalar": np.array(3.0),
    "empty": np.zeros((0, 4), np.float32),
}


def write(path: Path, header: Any, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def entry(dtype: Any = "F32", shape: Any = (1,), offsets: Any = (0, 4)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def test_reads_what_the_library_writes(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "x.safetensors", {"format": "pt", "name": "größe"})
    header = read_header(tmp_path / "x.safetensors")
    assert header.metadata == {"format": "pt", "name": "größe"}
    raw = (tmp_path / "x.safetensors").read_bytes()
    for name, array in TENSORS.items():
        info = header.tensors[name]
        assert info.shape == array.shape
        assert info.nbytes == array.nbytes
        assert raw[info.offset : info.offset + info.nbytes] == array.tobytes()


def test_the_library_reads_what_is_written_here(tmp_path: Path) -> None:
    order = ["scalar", "b", "empty", "a"]
    kinds = {"float64": "F64", "float32": "F32", "float16": "F16"}
    head, places = encode_header(
        [(name, kinds[TENSORS[name].dtype.name], TENSORS[name].shape) for name in order],
        {"format": "pt", "k": "ü"},
    )
    assert len(head) == 4096
    (tmp_path / "x.st").write_bytes(head + b"".join(TENSORS[name].tobytes() for name in order))
    loaded = load_file(tmp_path / "x.st")
    assert loaded.keys() == TENSORS.keys()
    assert all((loaded[name] == TENSORS[name]).all() for name in loaded)
    with safe_open(tmp_path / "x.st", "np") as file:
        assert file.metadata() == {"format": "pt", "k": "ü"}
    assert read_header(tmp_path / "x.st").tensors == {
        name: places[name] for name in read_header(tmp_path / "x.st").tensors
    }


@pytest.mark.parametrize(
    ("header", "data", "says"),
    [
        ({"x": entry()}, b"123", "truncated"),
        ({"x": entry()}, b"12345", "1 bytes follow"),
        ({"x": entry("F33")}, b"1234", "unknown dtype"),
        ({"x": entry(["F32"])}, b"1234", "unknown dtype"),
        ({"x": entry(shape=(2,))}, b"1234", "needs 8 bytes"),
        ({"x": entry(shape=(-1,))}, b"1234", "impossible shape"),
        ({"x": entry(shape=(1.0,))}, b"1234", "impossible shape"),
        ({"x": entry(shape=(True,))}, b"1234", "impossible shape"),
        ({"x": entry(shape=7)}, b"1234", "impossible shape"),
        ({"x": entry(shape=(1 << 61, 1 << 61, 1 << 61))}, b"1234", "needs"),
        ({"x": entry(offsets=(4, 0))}, b"1234", "impossible data_offsets"),
        ({"x": entry(offsets=(0, 4, 8))}, b"1234", "impossible data_offsets"),
        ({"x": entry(offsets=(4, 8))}, b"12345678", "hole"),
        ({"x": entry(), "y": entry(offsets=(2, 6))}, b"123456", "overlaps"),
        ({"x": entry(), "y": entry()}, b"1234", "overlaps"),
        ({"x": entry(), "y": entry(offsets=(8, 12))}, b"123456789012", "hole"),
        ({"x": {**entry(), "more": 1}}, b"1234", "exactly"),
        ({"x": [1]}, b"", "exactly"),
        ({"__metadata__": {"a": 1}}, b"", "__metadata__"),
        ({"__metadata__": [1]}, b"", "__metadata__"),
        (b'{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"x":{}}', b"1234", "twice"),
        (b'{"x":{"dtype":"F32","dtype":"F16","shape":[1],"data_offsets":[0,4]}}', b"1234", "twice"),
        (b"[1, 2]", b"", "does not start"),
        (b'{"x": NaN}', b"", "NaN is not a JSON number"),
        (b"{" * 5000, b"", "not valid JSON"),
        (b'{"a":' * 100_000, b"", "not valid JSON"),
        (b'{"\\ud800": {}}', b"", "not valid JSON"),
        (b"\xff\xfe{}", b"", "not valid JSON"),
        (
            b'{"x":{"dtype":"F32","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,4]}}',
            b"1234",
            "not valid JSON",
        ),
        (b"", b"1234", "does not start"),
    ],
)
def test_a_faulty_header_is_named(tmp_path: Path, header: Any, data: bytes, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        read_header(write(tmp_path / "bad.st", header, data))
    assert "bad.st" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_header_longer_than_the_file_or_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "long.st"
    path.write_bytes((1 << 60).to_bytes(8, "little") + b"{}")
    with pytest.raises(InputError, match="claim a header"):
        read_header(path)
    path.write_bytes((MAX_HEADER - 1).to_bytes(8, "little") + b"{}")
    with pytest.raises(InputError, match="truncated"):
        read_header(path)
    path.write_bytes(b"\0\0")
    with pytest.raises(InputError, match="only 2 bytes"):
        read_header(path)


def test_what_is_not_a_regular_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.st")
    for path in (tmp_path / "pipe.st", tmp_path, tmp_path / "absent.st"):
        with pytest.raises(InputError):
            read_header(path)


@settings(
    max_examples=100,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.data())
def test_a_damaged_file_gives_an_error_or_the_same_tensors(tmp_path: Path, data: st.DataObject) -> None:
    good = save(TENSORS, {"format": "pt"})
    damaged = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(damaged)) | st.just(len(damaged)))
    path = tmp_path / "x.st"
    path.write_bytes(bytes(damaged[:cut]))
    try:
        header = read_header(path)
    except InputError:
        return
    end = header.data_start
    for info in header.tensors.values():  # whatever was accepted lies inside the file, back to back
        assert info.offset == end
        end += info.nbytes
    assert end == cut
    try:
        loaded = load_file(path)
    except Exception:  # the library knows fewer dtypes in NumPy, and refuses what is not UTF-8 elsewhere
        return
    assert {name: array.shape for name, array in loaded.items()} == {
        n: i.shape for n, i in header.tensors.items()
    }


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 70), 1 << 70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@settings(
    max_examples=100,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.dictionaries(
        st.text(max_size=6) | st.just("__metadata__"),
        _JSON
        | st.fixed_dictionaries(
            {"dtype": st.sampled_from([*DTYPE_BYTES, "?"]), "shape": _JSON, "data_offsets": _JSON}
        ),
        max_size=4,
    ),
    st.binary(max_size=16),
)
def test_any_json_gives_an_error_or_a_header(tmp_path: Path, header: dict[str, Any], data: bytes) -> None:
    with contextlib.suppress(InputError):  # never anything else
        read_header(write(tmp_path / "x.st", header, data))
