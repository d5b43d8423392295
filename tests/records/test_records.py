"""Records: what is read, what is refused and in which line."""

from __future__ import annotations

import io
import itertools
import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sanactl.errors import InputError, OutputExistsError
from sanactl.records.jsonl import MAX_DEPTH, MAX_LINE
from sanactl.records.records import dumps, load_records, read_records, write_records

IMAGE = {"kind": "image", "path": "a.png", "prompt": "a star"}
text = st.text(st.characters(exclude_categories=["Cs"]))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(text.map(lambda name: f"own {name}"), json_values, max_size=5))
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
    # The parser's own words, which end with "at" and "starting at" where its place would follow.
    assert "invalid control character, at character 14" in bad('{"prompt": "a\0b"}')
    assert "unterminated string, at character 12" in bad('{"prompt": "a')
    assert "NaN" in bad('{"kind": "score", "metric": "x", "overall": NaN}')
    assert "list" in bad("[1]")
    assert "kind null" in bad('{"path": "a.png"}')
    assert '"thing"' in bad('{"kind": "thing"}')
    assert "without 'prompt'" in bad('{"kind": "image", "path": "a.png"}')
    assert "not UTF-8" in bad('{"kind": "image", "path": "\udcff", "prompt": "a"}')
    assert "not JSON" in bad('{"kind": "image", "path": "\\ud800", "prompt": "a"}')
    assert "longer" in bad("x" * (MAX_LINE + 1))
    assert "not JSON" in bad("[" * 100_000)


WRONG: dict[str, dict[str, list[Any]]] = {
    "image": {
        "path": [3, "", "a\0b", "x" * 5000, "\ud800"],
        "prompt": [3, ["a"], {}, True],
        "prompt_id": [1.5, [], True],
        "samples": ["4", 0, -1, 2.0, True, 10**30],
        "index": [-1, "0"],
        "rank": [0.5, "0", -1],
        "seed": [-1, 2**64, "7", 1.0],
        "steps": [0],
        "include": [
            "a",
            {},
            [1],
            [["class"]],
            [{"class": 5}],
            [{"count": 0}],
            [{"count": "1"}],
            [{"color": ["red"]}],
        ],
        "exclude": [
            7,
            [None],
            [{"position": "above"}],
            [{"position": ["above", "0"]}],
            [{"position": [0, 0]}],
        ],
        "judge_score": ["0.9", [], 10**301],
        "yes_logprob": [0.5, "x"],
        "correct": ["yes", 1, 0],
        "detections": [{"class": "a"}],
        "tag": [3],
        "checkpoint": [5, ""],
    },
    "block": {"block": [-1, "0", 1.5, 10**6], "importance": ["0.1", True], "timesteps": [["a"], 5]},
    "score": {
        "metric": [4],
        "overall": ["1", {}],
        "ci": [[1], [1, 2, 3], "ab", [0, "1"]],
        "tasks": [[], {"a": 1}, {"a": {"score": "1"}}, {"a": {"ci": [1]}}, {"a": {"images": "3"}}],
        "points": [{}, [1]],
        "step": ["1", -1],
    },
    "prompt": {"id": [1.5, []], "tag": [1], "include": [{}]},
    "checkpoint": {"path": [None, 3], "blocks": ["10"], "digest": [1], "lineage": [{}, ["a"]]},
}
WHOLE: dict[str, dict[str, Any]] = {
    "image": IMAGE,
    "block": {"kind": "block", "checkpoint": "a.st", "digest": "d", "block": 0, "importance": 0.5},
    "score": {"kind": "score", "metric": "m"},
    "prompt": {"kind": "prompt", "prompt": "a star"},
    "checkpoint": {"kind": "checkpoint", "path": "a.st"},
}


@pytest.mark.parametrize("kind", WHOLE)
def test_known_fields_have_their_types(kind: str) -> None:
    """A fault names the file, the line and the field; a null field counts as absent; the others are not looked at."""
    for field, values in WRONG[kind].items():
        for value in values:
            said = bad(json.dumps({**WHOLE[kind], field: value}))
            assert f"'{field}'" in said or "surrogate" in said
            assert len(said) < 300
        if field not in WHOLE[kind]:
            record = {**WHOLE[kind], field: None, "other": {"x": [field, values[-1]]}}
            assert list(read_records([dumps(record)], "x")) == [record]


def test_numbers_that_no_float_can_hold() -> None:
    for number in ("1e999", "-1e999", "9" * 400, "9" * 5000, f"{'9' * 250}e99", f"{'1' * 305}e+9"):
        for field in ("seed", "other"):
            said = bad(f'{{"kind": "image", "path": "a", "prompt": "b", "{field}": {number}}}')
            assert "line 3: not JSON" in said
            assert len(said) < 300
    large = {**IMAGE, "other": [10**300, 1e-400, 1.5e308, 10**18]}
    assert list(read_records([dumps(large)], "x")) == [large]


def test_depth_is_bounded() -> None:
    def nested(depth: int) -> str:
        return f'{{"kind": "image", "path": "a", "prompt": "b", "other": {"[" * depth}{"]" * depth}}}'

    (record,) = read_records([nested(MAX_DEPTH - 1)], "x")
    assert list(read_records([dumps(record)], "x")) == [record]
    for depth in (MAX_DEPTH, 900, 5000, 100_000):
        assert "nested deeper" in bad(nested(depth))
    wide = {**IMAGE, "other": [{}] * 1000}
    assert list(read_records([dumps(wide)], "x")) == [wide]


def test_names_that_are_not_utf8_come_back() -> None:
    """They are paths, and nothing else may hold such bytes."""
    record = {**IMAGE, "path": os.fsdecode(b"caf\xe9.png")}
    assert json.loads(dumps(record).encode())["path"] == "file:caf%E9.png"
    assert list(read_records([dumps(record)], "x")) == [record]
    for field in ("path", "prompt"):
        assert "surrogate" in bad(json.dumps({**IMAGE, field: os.fsdecode(b"caf\xe9")}))
    assert "'path'" in bad(json.dumps({**IMAGE, "path": "file:a%00b.png"}))


def test_only_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, said in (
        (tmp_path / "pipe", "named pipe"),
        (Path("/dev/zero"), "device"),
        (tmp_path, "folder"),
    ):
        with pytest.raises(InputError, match=said):
            load_records(path)
    assert load_records(Path(os.devnull)) == []


def test_a_stream_is_never_held(tmp_path: Path) -> None:
    """Records are read one by one; what holds them all has a limit."""
    line = dumps({**IMAGE, "fill": "x" * 100_000}) + "\n"
    stream = itertools.repeat(line)
    tracemalloc.start()
    for record in itertools.islice(read_records(stream, "x"), 100):
        assert record["path"] == "a.png"
    assert tracemalloc.get_traced_memory()[1] < 4_000_000
    tracemalloc.stop()
    with pytest.raises(InputError, match="too many to hold"):
        for _ in read_records(stream, "x", most=2_000_000):
            pass
    with pytest.raises(InputError, match="too many to hold"):
        for _ in read_records(itertools.repeat("\n"), "x", most=1_000_000):
            pass


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
