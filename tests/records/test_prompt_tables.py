"""Prompts from a column of a table: CSV, TSV, Parquet and JSON, as published benchmarks have them, and damaged ones."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sanactl.api.inputs import as_prompts
from sanactl.cli.frame.inputs import choose_prompts, prompts_wanted
from sanactl.errors import InputError, UsageError
from sanactl.records.prompt_tables import parse_table, split_column
from sanactl.records.prompts import load_prompts
from tests.program import Program, stdin_of

# In the form of PartiPrompts.tsv: no quoting, cells that are empty, quotation marks that are characters.
PARTI = (
    "Prompt\tCategory\tChallenge\tNote\n"
    "bond\tAbstract\tBasic\tConcepts\n"
    'A sign that says "Very Deep Learning".\tWorld Knowledge\tComplex\t\n'
    '"Fly an airplane" on a wall\tOutdoor Scenes\tComplex\t\n'
)
MJHQ = {"abc": {"category": "animals", "prompt": "a cat"}, "def": {"category": "art", "prompt": "a vase"}}
# In the form of dpg_bench.csv: a row for each question about a prompt.
DPG = (
    "item_id,text,proposition_id,question_natural_language\r\n"
    'p1,"A red, round\r\nball",1,Is there a ball?\r\n'
    'p1,"A red, round\r\nball",2,Is it red?\r\n'
    "p2,A cat,1,Is there a cat?\r\n"
)


def texts(path: str) -> list[str]:
    return [r["prompt"] for r in load_prompts(Path(path))]


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_published_files_are_read() -> None:
    Path("parti.tsv").write_text(PARTI, encoding="utf-8")
    records = load_prompts(Path("parti.tsv"))
    assert [r["prompt"] for r in records] == [line.split("\t")[0] for line in PARTI.splitlines()[1:]]
    assert records[1] == {
        "kind": "prompt", "id": "00001", "Category": "World Knowledge", "Challenge": "Complex",
        "prompt": 'A sign that says "Very Deep Learning".',
    }  # fmt: skip
    assert texts("parti.tsv#Category") == ["Abstract", "World Knowledge", "Outdoor Scenes"]
    for indent in (None, 2):
        Path("meta_data.json").write_text(json.dumps(MJHQ, indent=indent), encoding="utf-8")
        records = load_prompts(Path("meta_data.json"))
        assert records == [{"kind": "prompt", "id": key, **item} for key, item in MJHQ.items()]
    Path("dpg.csv").write_bytes(b"\xef\xbb\xbf" + DPG.encode())
    first, second = load_prompts(Path("dpg.csv"))
    assert first == {"kind": "prompt", "id": "p1", "item_id": "p1", "prompt": "A red, round\nball"}
    assert second["prompt"] == "A cat" and second["question_natural_language"] == "Is there a cat?"


CELL = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]) | st.sampled_from('",\t;'), min_size=1, max_size=12
).filter(lambda s: s.strip() == s)  # fmt: skip


@given(
    st.lists(st.tuples(CELL, st.text('ab\n,"', max_size=6)), min_size=1, max_size=6), st.sampled_from(",;\t")
)
def test_what_a_csv_writer_writes_is_read_back(rows: list[tuple[str, str]], delimiter: str) -> None:
    import csv
    import io

    out = io.StringIO(newline="")
    csv.writer(out, delimiter=delimiter).writerows([("Caption", "note"), *rows])
    found = list(parse_table(out.getvalue().splitlines(keepends=True), "x", None, end=".csv"))
    assert [(r["prompt"], r.get("note", "")) for r in found] == rows


def test_a_parquet_file_is_read_without_its_images() -> None:
    clause = {"class": "dog", "count": 2, "color": None}
    columns: dict[str, Any] = {
        "image": [{"bytes": random.Random(0).randbytes(100), "path": "x.png"}] * 3,
        "Prompt": ["a dog", "two dogs", "a cat"],
        "score": [0.5, 1.0, 2.0],
        "aesthetic": [6.5, float("nan"), None],
        "include": [[clause], [clause], None],
        "width": [512, 512, 512],
        "split": pa.array(["a", "a", "b"]).dictionary_encode(),
    }
    parquet.write_table(pa.table(columns), "p.parquet")
    first, second, third = load_prompts(Path("p.parquet"))
    assert first == {
        "kind": "prompt", "id": "00000", "prompt": "a dog", "aesthetic": 6.5, "split": "a",
        "include": [{"class": "dog", "count": 2}],
    }  # fmt: skip
    assert "aesthetic" not in second and "include" not in third
    assert texts("p.parquet#split") == ["a", "a", "b"]
    with pytest.raises(InputError, match="'aesthetic' has a float, not text"):
        load_prompts(Path("p.parquet#aesthetic"))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("p.csv", b"", "no prompts in it"),
        ("p.csv", b"prompt,b\n", "no prompts in it"),
        ("p.csv", b"a,b\n1,2\n", "line 2: no column prompt, text, caption; it has a, b"),
        ("p.csv#c", b"a,b\n1,2\n", "line 2: no column 'c'; it has a, b"),
        ("p.csv#", b"a,b\n1,2\n", "names no column"),
        ("p.csv", b"prompt,b\nx,1\n ,2\n", "line 3: no prompt in column 'prompt'"),
        ("p.csv", b"prompt,b\nred, round,2\n", "line 2: 3 cells, where the first line names 2"),
        ("p.csv", b'prompt,b\n"x\ny",1\n"z,2\n', "line 4: not CSV"),
        ("p.csv", b"prompt,b\nx,1\n\xff,2\n", "line 3: not UTF-8"),
        ("p.csv", b"prompt\n" + b"x" * 20_001, "prompt 1: longer than 20,000"),
        ("p.csv", b"prompt,b\nx," + b"x" * 200_000, "line 2: not CSV .field larger"),
        ("p.csv", b"x" * 5_000_000, "line 1: too much text"),
        ("p.tsv", b"prompt\tb\nx\n", "line 2: 1 cells"),
        ("p.json", b"[", "not JSON"),
        ("p.json", b'{"a": {"prompt": 3}}', "'a'.* has a int, not text"),
        ("p.json", b'{"a": {"title": "x"}}', "'a'.*no column prompt"),
        ("p.json", b"[3]", "item 1: a JSON int, not an object"),
        ("p.json", b'{"prompt": "x"}\n{"prompt": \n', "line 2: not JSON"),
        ("p.json", b"[]", "no prompts in it"),
        ("p.jsonl#title", b'{"title": "x"}\n\n{"titel": "x"}\n', "line 3: no column 'title'; it has titel"),
        ("p.parquet", b"PAR1 and nothing", "cannot be read as Parquet"),
        ("p.parquet", b"", "cannot be read as Parquet"),
        ("p.txt", b"Prompt\tCategory\nbond\tAbstract\n", "looks like a table, with a column 'Prompt'"),
    ],
)
def test_bad_tables(name: str, content: bytes, said: str) -> None:
    Path(split_column(name)[0].rstrip("#")).write_bytes(content)
    with pytest.raises(InputError, match=said) as caught:
        load_prompts(Path(name))
    assert "\n" not in str(caught.value)


def test_a_damaged_parquet_file_gives_one_line() -> None:
    parquet.write_table(pa.table({"prompt": [f"prompt {n}" for n in range(2000)]}), "whole.parquet")
    whole = Path("whole.parquet").read_bytes()
    for at in (100, len(whole) // 2, len(whole) - 200, len(whole) - 30):
        Path("cut.parquet").write_bytes(whole[:at] + b"\xff\x00\xff" + whole[at + 3 :])
        assert outcome("cut.parquet") in ("2000", "cut.parquet")
    parquet.write_table(
        pa.table({"text": [b"\xff\xfe"]}).cast(pa.schema([("text", pa.binary())])), "b.parquet"
    )
    with pytest.raises(InputError, match="has a bytes, not text"):
        load_prompts(Path("b.parquet"))


def outcome(path: str) -> str:
    """The number of prompts, or what the error begins with; other exceptions pass."""
    try:
        return str(len(load_prompts(Path(path))))
    except InputError as error:
        return str(error).split(":")[0] if "\n" not in str(error) else str(error)


def test_names_of_columns() -> None:
    for name in ("a#b.csv", "a"):
        Path(name).write_text("prompt,x\na cat,a dog\n", encoding="utf-8")
    assert split_column("a#b.csv") == ("a#b.csv", None)
    assert split_column("a#b.csv#x") == ("a#b.csv", "x")
    assert split_column("a#b#c") == ("a", "b#c")
    assert split_column("-#x#y") == ("-", "x#y")
    assert split_column("gone#x") == ("gone", "x")
    assert texts("a#b.csv") == ["a cat"]
    assert texts("a#b.csv#x") == texts("a#x") == ["a dog"]
    for missing in ("gone.csv", "gone.tsv#x", "gone.parquet", "gone.json"):
        with pytest.raises(InputError, match="no such prompt file"):
            load_prompts(Path(missing))
    Path("folder.csv").mkdir()
    with pytest.raises(InputError, match="folder"):
        load_prompts(Path("folder.csv"))


def test_commands_and_functions_read_tables(sanactl: Program) -> None:
    stars = "Title;Caption\na;a photo of a star\nb;a photo of a heart\n"
    Path("my stars.csv").write_text(stars, encoding="utf-8")
    read = as_prompts("my stars.csv#Caption", default="demo")
    assert [(r["prompt"], r["Title"]) for r in read] == [
        ("a photo of a star", "a"),
        ("a photo of a heart", "b"),
    ]
    assert as_prompts("my stars.csv", default="demo") == read
    # What `sample`, `scale` and `importance` ask for.
    assert choose_prompts("my stars.csv#Caption", [], default="demo") == (read, "my stars.csv#Caption")
    assert prompts_wanted("-#Caption", "tiny.st") == ()
    with stdin_of(stars):
        assert choose_prompts("-#Caption", [], default="demo") == (read, "stdin")
    with pytest.raises(UsageError, match="the checkpoint must be named"):
        prompts_wanted("-#Caption", None)
    passed = sanactl("guard", "/dev/stdin#Caption", "-m", "builtin:words", stdin=stars)
    assert [r["prompt"] for r in passed] == [r["prompt"] for r in read]
    left = sanactl("prompts", "shapes", "--split", "train", "-n", "9", "--exclude", "-#Title", stdin=stars)
    assert len(left) == 9 and "2 of 2 prompts" in sanactl.said
