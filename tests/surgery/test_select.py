"""From sizes and lists to blocks."""

from __future__ import annotations

from pathlib import Path

import pytest

from sanactl.bench.synthetic import SANA_1_6B, TINY, synthetic_checkpoint
from sanactl.checkpoint.open import open_checkpoint
from sanactl.checkpoint.sana import expected_tensors
from sanactl.checkpoint.write import parse_size, write_checkpoint
from sanactl.errors import UsageError
from sanactl.files.human import format_ranges
from sanactl.surgery.prune import plan_prune
from sanactl.surgery.select import (
    blocks_for_bytes,
    blocks_for_parameters,
    complement,
    parse_blocks,
    parse_parameters,
)


@pytest.mark.parametrize(
    ("text", "blocks"),
    [
        ("0-2,5", [0, 1, 2, 5]),
        ("3", [3]),
        ("-1", [9]),
        ("-3--1", [7, 8, 9]),
        ("2, 2 ,1", [1, 2]),
        ("8--1", [8, 9]),
    ],
)
def test_parse_blocks(text: str, blocks: list[int]) -> None:
    assert parse_blocks(text, 10) == blocks


@pytest.mark.parametrize("text", ["", "a", "1-", "5-3", "10", "-11", "0-10", "1;2", "1.5", "²"])
def test_what_names_no_blocks(text: str) -> None:
    with pytest.raises(UsageError):
        parse_blocks(text, 10)


def test_complement() -> None:
    assert complement([0, 3], 5) == [1, 2, 4]
    with pytest.raises(UsageError):
        complement([0, 1], 2)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0,99", "there is no block 99"),
        ("0-99", "there is no block 99"),
        ("-11", "there is no block -11"),
        ("5-2", "the blocks 5-2 are no range: 5 comes after 2"),
        ("-1-3", "the blocks -1-3 are no range: 9 comes after 3"),
    ],
)
def test_blocks_that_are_not_there(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_blocks(text, 10)


@pytest.mark.parametrize("blocks", [[0], [9], [0, 1, 2, 5, 7, 8], [], list(range(10)), [1, 3, 5]])
def test_format_ranges_is_what_parse_blocks_reads(blocks: list[int]) -> None:
    text = format_ranges(blocks)
    assert (parse_blocks(text, 10) if blocks else []) == blocks
    assert format_ranges([0, 1, 2, 5]) == "0-2,5"


def test_sizes() -> None:
    assert parse_size("5GB") == 5_000_000_000
    assert parse_size("1.5 MiB") == 1_572_864
    assert parse_size(100) == 100
    assert parse_parameters("1.6B") == 1.6e9
    for text in ("", "GB", "-1GB", "0", "5XB", "1e999"):
        with pytest.raises(UsageError):
            parse_size(text)
        with pytest.raises(UsageError):
            parse_parameters(text)


def test_depth_for_a_size(tmp_path: Path) -> None:
    base = open_checkpoint(synthetic_checkpoint(tmp_path / "base.st", {**TINY, "num_layers": 10}))
    for blocks in (1, 4, 10):
        pruned = write_checkpoint(plan_prune(base, range(blocks)), tmp_path / f"{blocks}.st")
        assert blocks_for_parameters(base, open_checkpoint(pruned).num_parameters) == blocks
        fitting = blocks_for_bytes(base, pruned.stat().st_size + 20_000)
        assert write_checkpoint(
            plan_prune(base, range(fitting)), tmp_path / f"fit-{blocks}.st"
        ).stat().st_size <= (pruned.stat().st_size + 20_000)
        assert fitting >= blocks
    for wrong in ("1", "1B"):
        with pytest.raises(UsageError):
            blocks_for_parameters(base, wrong)
    with pytest.raises(UsageError):
        blocks_for_bytes(base, "10KB")


def test_the_published_sizes_are_those_of_the_paper() -> None:
    def parameters(blocks: int) -> int:
        total = 0
        for shape in expected_tensors({**SANA_1_6B, "num_layers": blocks}).values():
            size = 1
            for dimension in shape:
                size *= dimension
            total += size
        return total

    assert [round(parameters(blocks) / 1e9, 1) for blocks in (20, 40, 60)] == [1.6, 3.2, 4.7]
    assert parameters(20) == 1_604_641_952
