"""Prompt files: plain text, GenEval's metadata lines, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from sanactl.errors import InputError
from sanactl.io.prompts import MAX_PROMPT, load_prompts, parse_prompts


def test_plain_text_is_one_prompt_a_line() -> None:
    assert parse_prompts(["\ufeffa star\n", "\n", "  two dogs \r\n"], "p") == [
        {"kind": "prompt", "prompt": "a star", "id": "00000"},
        {"kind": "prompt", "prompt": "two dogs", "id": "00001"},
    ]


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
        (b"a star\n\xff\xfe\n", "line 2: not UTF-8"),
        (b"x" * (MAX_PROMPT + 1), "prompt 1: longer"),
    ],
)
def test_bad_files(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "p.txt").write_bytes(content)
    with pytest.raises(InputError, match=said):
        load_prompts(tmp_path / "p.txt")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such prompt file"):
        load_prompts(tmp_path / "p.txt")
