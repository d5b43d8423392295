"""Bad records, images and places: one line, and nothing is left behind."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import sanactl as api
from sanactl.exporting.formats.registry import EXPORTS, open_format
from sanactl.exporting.settings import export_settings
from tests.exporting.records import COUNT, write_records
from tests.pictures import spoil
from tests.program import Program

NVILA = ("--to", "nvila-json")


@pytest.fixture
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    monkeypatch.chdir(tmp_path)
    return write_records(tmp_path)


def changed(records: list[dict[str, Any]], number: int, **fields: Any) -> str:
    """The records as JSON lines, one of them with other fields; None takes a field away."""
    new = {k: v for k, v in {**records[number], **fields}.items() if v is not None}
    return "".join(json.dumps(new if n == number else r) + "\n" for n, r in enumerate(records))


@pytest.mark.parametrize(
    ("fields", "options", "says"),
    [
        ({"prompt": None}, (), "stdin, line 4: an image record without 'prompt'"),
        ({"prompt": ""}, (), "00003/samples/0000.png: its record has no text in prompt"),
        ({"prompt": " \n"}, (), "has no text in prompt"),
        ({"path": "gone.png"}, (), "gone.png: no such image"),
        ({"path": "00000"}, (), "00000: is not a regular file"),
        ({"path": "records.jsonl"}, (), "records.jsonl: not a readable image"),
        ({"correct": None}, NVILA, "00003/samples/0000.png: its record has no correct"),
        ({"said": "maybe"}, (*NVILA, "--label-field", "said"), "its record has no said"),
        ({"prompt": "an <image> of a star"}, NVILA, "its prompt has <image> in it"),
        ({"long": 5}, ("--text-field", "prompt", "--text-field", "long"), "its long is 5, not text"),
        ({}, ("--text-field", "long"), "00000/samples/0000.png: its record has no text in long"),
    ],
)  # fmt: skip
def test_a_record_that_cannot_be_used_is_named(
    sanactl: Program,
    records: list[dict[str, Any]],
    fields: dict[str, Any],
    options: tuple[str, ...],
    says: str,
) -> None:
    said = sanactl.fails("export", "-", "-o", "set", *options, stdin=changed(records, 3, **fields))
    assert says in said
    assert not Path("set").exists() and not Path(".set.export").exists()


def test_damaged_images_are_left_out_up_to_a_number(sanactl: Program, records: list[dict[str, Any]]) -> None:
    spoil(Path(records[1]["path"]))
    os.unlink(records[4]["path"])
    said = sanactl.fails("export", "records.jsonl", "-o", "set")
    assert "00001/samples/0000.png: not a readable image" in said and "--max-bad" in said
    sanactl("export", "records.jsonl", "-o", "set", "--max-bad", "1", code=1)
    assert "2 images cannot be read, and --max-bad allows 1" in sanactl.said
    passed = sanactl("export", "records.jsonl", "-o", "set", "--max-bad", "2")
    assert passed == [r for n, r in enumerate(records) if n not in (1, 4)]
    assert "left out: 00001/samples/0000.png" in sanactl.said and "2 records left out" in sanactl.said
    lines = [json.loads(line) for line in Path("set/metadata.jsonl").read_text().splitlines()]
    assert [line["prompt_id"] for line in lines] == ["0", "2", "3", "5", "6"]
    assert [line["file_name"][-12:-4] for line in lines] == [f"{n:08d}" for n in range(5)]
    assert "2 records were left out" in Path("set/README.md").read_text()


def test_sana_takes_png_and_jpeg_alone(sanactl: Program, records: list[dict[str, Any]]) -> None:
    with Image.open(records[2]["path"]) as image:
        image.save("x.png", "WEBP")  # the suffix says nothing
    text = changed(records, 2, path="x.png")
    assert "x.png: is a WEBP image" in sanactl.fails("export", "-", "--to", "sana", "-o", "set", stdin=text)
    sanactl("export", "-", "--to", "webdataset", "-o", "set", stdin=text)
    fields = ("--text-field", "long", "--text-field", "prompt")
    assert "the first text `prompt`" in sanactl.fails(
        "export", "records.jsonl", "--to", "sana", *fields, code=2
    )


def test_values_of_all_kinds_become_columns(sanactl: Program, records: list[dict[str, Any]]) -> None:
    values = [2**64, 1, 0.5, "text", True, {"a": [1]}, None]
    lines = [{**r, "mixed": v, "huge": 2**70, "text": "not the caption", "image": "x"} for r, v in zip(records, values, strict=True)]  # fmt: skip
    sanactl("export", "-", "-o", "set", stdin="".join(json.dumps(line) + "\n" for line in lines))
    rows = [json.loads(line) for line in Path("set/metadata.jsonl").read_text().splitlines()]
    assert [r["mixed"] if r["mixed"] is None else json.loads(r["mixed"]) for r in rows] == values
    assert {r["huge"] for r in rows} == {str(2**70)}
    assert [r["text"] for r in rows] == [r["prompt"] for r in records]
    assert all("image" not in r for r in rows)


def test_no_end_of_columns_is_refused(sanactl: Program, records: list[dict[str, Any]]) -> None:
    text = json.dumps({**records[0], **{f"field{n}": n for n in range(1200)}})
    assert "more than 1,000 different fields" in sanactl.fails("export", "-", "-o", "set", stdin=text)


@pytest.mark.parametrize("value", [math.nan, math.inf, {1, 2}, Path("x")])
def test_values_that_are_not_json_come_from_python_alone(records: list[dict[str, Any]], value: Any) -> None:
    with pytest.raises(api.InputError, match="its record is not JSON"):
        api.export([{**records[0], "own": value}], output="set")
    assert not Path("set").exists()


@pytest.mark.parametrize("size", ["0", "-1", "x", "1e99", "9999999"])
def test_sizes_that_are_none(sanactl: Program, records: list[dict[str, Any]], size: str) -> None:
    said = sanactl.fails("export", "records.jsonl", f"--shard-size={size}", code=2)
    assert "--shard-size" in said and "images" in said


@pytest.mark.parametrize("to", EXPORTS)
def test_settings_that_a_format_does_not_have(
    sanactl: Program, records: list[dict[str, Any]], to: str
) -> None:
    for options, given, fits in (
        (["--link"], {"link": True}, to in ("imagefolder", "nvila-json")),
        (["--label-field", "correct"], {"label_field": "correct"}, to == "nvila-json"),
    ):
        if fits:
            open_format(to).check(export_settings(to, **given))
            continue
        said = sanactl.fails("export", "records.jsonl", "--to", to, "-o", "set", *options, code=2)
        assert f"{options[0]} is for" in said and to in said
        with pytest.raises(api.UsageError, match=options[0]):
            api.export(records, to=to, output="set", **given)
    assert not Path("set").exists() and not Path(".set.export").exists()


def test_places_that_cannot_be_written(sanactl: Program, records: list[dict[str, Any]]) -> None:
    Path("taken").touch()
    for nameless in (".", "..", "00000/.."):
        said = sanactl.fails("export", "records.jsonl", "-o", nameless, code=2)
        assert "is not a name for an output" in said
    assert "is a file" in sanactl.fails("export", "records.jsonl", "-o", "taken", code=2)
    assert "does not exist" in sanactl.fails("export", "records.jsonl", "-o", "no/such/set")
    assert "is written, not a table" in sanactl.fails("export", "records.jsonl", "-o", "x.parquet", code=2)
    assert "no format 'zip'" in sanactl.fails("export", "records.jsonl", "--to", "zip", code=2)
    if os.geteuid():
        Path("shut").mkdir(mode=0o500)
        assert "no permission" in sanactl.fails("export", "records.jsonl", "-o", "shut/set")


def test_nothing_came_in(sanactl: Program, records: list[dict[str, Any]]) -> None:
    assert "no images to export came in" in sanactl.fails("export", "-", "-o", "set", stdin="")
    Path("empty.jsonl").touch()
    assert "empty.jsonl: no images to export in it" in sanactl.fails("export", "empty.jsonl")
    for path in Path().glob("0*/samples/*"):
        path.unlink()
    sanactl("export", "records.jsonl", "-o", "set", "--max-bad", "99", code=1)
    assert f"all {COUNT} were left out" in sanactl.said and not Path("set").exists()


def test_the_natural_name_is_that_of_the_records_and_the_format(
    sanactl: Program, records: list[dict[str, Any]]
) -> None:
    sanactl("export", "records.jsonl", "--to", "webdataset")
    sanactl("export", stdin=Path("records.jsonl").read_text())
    assert (
        Path("records-webdataset/00000.tar").exists() and Path("images-imagefolder/metadata.jsonl").exists()
    )
