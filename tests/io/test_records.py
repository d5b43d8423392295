"""Records: what is read, what is refused and in which line."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sanactl.errors import InputError, OutputExistsError
from sanactl.io.records import MAX_LINE, dumps, load_records, read_records, write_records

IMAGE = {"kind": "image", "path": "a.png", "prompt": "a star"}
text = st.text(st.characters(exclude_categories=["Cs"]))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(text.filter(lambda k: k != "kind"), json_values, max_size=5))
def test_unknown_fields_come_back_as_they_were(fields: dict) -> None:
    record = {**fields, **IMAGE}
    assert list(read_records([dumps(record)], "x")) == [record]
    assert "\n" not in dumps(record)


def bad(line: str, **options: Any) -> str:
    """The error that a stream gives whose third line is `line`."""
    with pytest.raises(InputError) as error:
        list(read_records([dumps(IMAGE) + "\n", "\n", line], "r.jsonl", **options))
    assert "r.jsonl, line 3" in str(error.value)
    return str(error.value)


def test_bad_lines_are_named() -> None:
    assert "not JSON" in bad("{nonsense")
    assert "not JSON" in bad('{"kind": "image"')
    assert "NaN" in bad('{"kind": "score", "metric": "x", "overall": NaN}')
    assert "list" in bad("[1]")
    assert "kind None" in bad('{"path": "a.png"}')
    assert "'thing'" in bad('{"kind": "thing"}')
    assert "without 'prompt'" in bad('{"kind": "image", "path": "a.png"}')
    assert "must be text" in bad('{"kind": "image", "path": 3, "prompt": "a"}')
    assert "not UTF-8" in bad('{"kind": "image", "path": "\udcff", "prompt": "a"}')
    assert "not JSON" in bad('{"kind": "image", "path": "\\ud800", "prompt": "a"}')
    assert "longer" in bad("x" * (MAX_LINE + 1))
    assert "not JSON" in bad("[" * 100_000)


def test_no_line_is_read_whole_that_is_too_long() -> None:
    stream = io.StringIO("x" * (3 * MAX_LINE))
    with pytest.raises(InputError, match="longer"):
        list(read_records(stream, "x"))
    assert stream.tell() < 2 * MAX_LINE


def test_other_kinds_are_passed_over_and_a_kind_can_be_given() -> None:
    lines = [dumps(IMAGE), '{"prompt": "a star", "tag": "single_object"}']
    assert list(read_records(lines, "x", kinds=("prompt",), default_kind="prompt")) == [
        {"kind": "prompt", "prompt": "a star", "tag": "single_object"}
    ]


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_bytes(b"\xef\xbb\xbf" + json.dumps(IMAGE).encode() + b"\r\n")
    assert load_records(tmp_path / "r.jsonl") == [IMAGE]


def test_a_file_with_a_bad_byte_names_its_line(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_bytes(dumps(IMAGE).encode() + b"\n\xff\n")
    with pytest.raises(InputError, match="line 2"):
        load_records(tmp_path / "r.jsonl")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        load_records(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match="cannot be read"):
        load_records(tmp_path)


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    def stream():
        yield IMAGE
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError):
        write_records(stream(), tmp_path / "r.jsonl")
    assert list(tmp_path.iterdir()) == []
    write_records([IMAGE], tmp_path / "r.jsonl")
    with pytest.raises(OutputExistsError):
        write_records([], tmp_path / "r.jsonl")
    assert load_records(tmp_path / "r.jsonl") == [IMAGE]
