"""Prompt files: plain text, GenEval's metadata lines, and what is refused."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest

from sanactl.errors import InputError
from sanactl.records.prompts import MAX_PROMPT, load_prompts, parse_prompts


def test_plain_text_is_one_prompt_a_line() -> None:
    assert parse_prompts(["\ufeffa star\n", "\n", "  two dogs \r\n"], "p") == [
        {"kind": "prompt", "prompt": "a star", "id": "00000"},
        {"kind": "prompt", "prompt": "two dogs", "id": "00001"},
    ]


def test_braces_and_brackets_may_be_words_of_a_prompt() -> None:
    lines = ["[oil painting] a star", "{a|b} circle", "{'not': 'json'}", "[x]", '["']
    assert [r["prompt"] for r in parse_prompts(["a star", *lines], "p")] == ["a star", *lines]


def test_geneval_metadata_is_valid_as_it_stands() -> None:
    line = '{"tag": "counting", "include": [{"class": "dog", "count": 2}], "prompt": "a photo of two dogs"}\n'
    (record,) = parse_prompts([line], "p")
    assert record["kind"] == "prompt"
    assert record["include"] == [{"class": "dog", "count": 2}]
    assert record["id"] == "00000"


def test_own_ids_stay() -> None:
    lines = ['{"prompt": "a", "id": "x"}', '{"prompt": "b"}']
    assert [r["id"] for r in parse_prompts(lines, "p")] == ["x", "00001"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no prompts"),
        (b" \n\t\n", "no prompts"),
        (b'{"kind": "image", "path": "a", "prompt": "b"}\n', "no prompts"),
        (b'{"prompt": "a"}\n{"promt": "b"}\n', "line 2"),
        (b'\n\n{"prompt": "a"}\n{"prompt": 5}\n', "line 4"),
        (b'{"prompt": "a", "include": "star"}\n', "line 1.*'include'"),
        (b'{"prompt": "a", "id": [1]}\n', "line 1.*'id'"),
        (b"\n\na star\n\xff\n", "line 4"),
        (b"\0" * 5_000_000, "too much text"),
        (b"a star\n\xff\xfe\n", "line 2: not UTF-8"),
        (b'a star\n\n{"prompt": "b"}\n', "line 3: a JSON object, but the lines before"),
        (b'"prompt": "a"}\n{"prompt": "b"},\n', "line 2: a JSON object, but the lines before"),
        (b'{"prompt": "a"}\na star\n', "line 2: not JSON"),
        (b'[\n{"prompt": "b"}\n]\n', "line 1: a JSON array"),
        (b'[{"prompt": "b"}]\n', "line 1: a JSON array"),
        (b"x" * (MAX_PROMPT + 1), "prompt 1: longer"),
    ],
)
def test_bad_files(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "p.txt").write_bytes(content)
    with pytest.raises(InputError, match=said):
        load_prompts(tmp_path / "p.txt")


def test_a_null_id_is_none() -> None:
    assert [
        r["id"] for r in parse_prompts(['{"prompt": "a", "id": null}', '{"prompt": "b", "id": 7}'], "p")
    ] == [
        "00000",
        7,
    ]


def test_what_has_no_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sanactl.records.prompts.MAX_PROMPTS", 1000)
    for line in ("a star\n", '{"prompt": "a star"}\n'):
        assert len(parse_prompts([line] * 1000, "p")) == 1000
        with pytest.raises(InputError, match="more than 1,000 prompts"):
            parse_prompts(itertools.repeat(line), "p")
    with pytest.raises(InputError, match="no prompts in its first"):
        parse_prompts(itertools.repeat("\n"), "p")


def test_a_named_pipe_is_refused_and_an_open_one_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="named pipe"):
        load_prompts(tmp_path / "pipe")
    reader, writer = os.pipe()
    os.write(writer, b"a star\n")
    os.close(writer)
    try:
        assert [r["prompt"] for r in load_prompts(Path(f"/dev/fd/{reader}"))] == ["a star"]
    finally:
        os.close(reader)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such prompt file"):
        load_prompts(tmp_path / "p.txt")
