"""Captions from several columns: a function of seed and position, in the shares that were asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sanactl.data import TableSource, open_training_data
from sanactl.data.captions import parse_captions
from sanactl.errors import UsageError
from tests.pictures import write_folder
from tests.program import Program


def test_columns_come_in_the_shares_of_their_weights() -> None:
    choice = parse_captions("text:0.7, short:0.2,tags:0.1")
    picks = [choice.pick([True, True, True], 3, position) for position in range(5000)]
    assert picks == [choice.pick([True, True, True], 3, position) for position in range(5000)]
    assert picks != [choice.pick([True, True, True], 4, position) for position in range(5000)]
    for column, share in enumerate((0.7, 0.2, 0.1)):
        assert picks.count(column) / 5000 == pytest.approx(share, abs=0.02)


def test_the_weight_of_an_empty_column_goes_to_the_others() -> None:
    choice = parse_captions("a:0.6,b:0.3,c:0.1")
    picks = [choice.pick([False, True, True], 0, position) for position in range(4000)]
    assert picks.count(0) == 0
    assert picks.count(1) / 4000 == pytest.approx(0.75, abs=0.025)
    assert choice.pick([False, False, True], 0, 9) == 2
    assert choice.pick([False, False, False], 0, 9) is None


@pytest.mark.parametrize("text", ["", "a:", "a:x", "a:0", "a:-1", "a:nan", "a:inf", "a:1,a:2", "a,,b", ":1"])
def test_what_is_no_choice_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--captions"):
        parse_captions(text)


def test_captions_of_a_folder(place: Path) -> None:
    write_folder(place / "shots", 9)
    options = {"seed": 1, "height": 64, "width": 64}
    plain = open_training_data("shots", **options)  # type: ignore[arg-type]
    mixed = open_training_data("shots", captions="text:0.5,short:0.5", **options)  # type: ignore[arg-type]
    assert isinstance(plain, TableSource) and isinstance(mixed, TableSource)
    assert plain.identity != mixed.identity
    long = plain.batch(range(90))[1]
    some = mixed.batch(range(90))[1]
    short = [s.startswith("short") for s in some]
    assert 15 < sum(short) < 45  # a half of the six of nine rows that have one
    assert all(a == b for a, b, other in zip(long, some, short, strict=True) if not other)
    # The same draw in parts and in another order.
    assert [mixed.batch([p])[1][0] for p in reversed(range(90))] == some[::-1]


def test_a_column_that_is_not_there(place: Path, sanactl: Program) -> None:
    write_folder(place / "shots", 2)
    said = sanactl.fails("encode", "tiny.st", "--data", "shots", "--captions", "text,long")
    assert "no column 'long'" in said and "text, short" in said
    said = sanactl.fails("encode", "tiny.st", "--data", "shots", "--captions", "text:x", code=2)
    assert "text:0.7,short:0.3" in said


def test_images_without_captions(place: Path, sanactl: Program) -> None:
    folder = write_folder(place / "shots", 2)
    (folder / "metadata.jsonl").unlink()
    said = sanactl.fails("encode", "tiny.st", "--data", "shots")
    assert "shots: has images but no captions" in said and "metadata.jsonl" in said
    lines = [json.dumps({"file_name": f"{i:03d}.png", "alt": "a dog"}) for i in range(2)]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    said = sanactl.fails("encode", "tiny.st", "--data", "shots")
    assert "no captions" in said and "beside alt" in said and "--captions" in said
