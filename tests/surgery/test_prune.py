"""Pruning, held against the real diffusers class."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sanactl.checkpoint import copy as copy_module
from sanactl.checkpoint import fill
from sanactl.checkpoint.copy import Sources
from sanactl.checkpoint.open import Checkpoint, open_checkpoint
from sanactl.checkpoint.write import write_checkpoint, write_checkpoints
from sanactl.errors import InputError, UsageError
from sanactl.files import direct_io
from sanactl.surgery.grow import Growth, plan_grow
from sanactl.surgery.prune import choose_blocks, choose_span, plan_prune
from tests.surgery.models import load


@pytest.mark.parametrize("shard_size", ["20KB", "5GB"])
def test_pruning_keeps_the_chosen_blocks_in_order(base: Checkpoint, tmp_path: Path, shard_size: str) -> None:
    child = write_checkpoint(plan_prune(base, [3, 0, 1]), tmp_path / "child", shard_size=shard_size)
    model, parent = load(child), load(base.path)
    for new, old in enumerate((0, 1, 3)):
        for one, other in zip(
            model.transformer_blocks[new].parameters(),
            parent.transformer_blocks[old].parameters(),
            strict=True,
        ):
            assert torch.equal(one, other)
    opened = open_checkpoint(child)
    assert opened.num_blocks == 3
    assert opened.lineage[-1]["arguments"] == {"blocks": [0, 1, 3]}


def test_grow_then_prune_gives_back_the_parents_tensors(base: Checkpoint, tmp_path: Path) -> None:
    deep = open_checkpoint(write_checkpoint(plan_grow(base, Growth(9, drop_last=0)), tmp_path / "deep.st"))
    back = write_checkpoint(plan_prune(deep, range(4)), tmp_path / "back.st")
    before, after = load_file(base.path), load_file(back)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert [entry["command"] for entry in open_checkpoint(back).lineage] == ["grow", "prune"]
    assert open_checkpoint(back).lineage[1]["parents"] == [{"name": "deep", "digest": deep.digest}]


def test_several_depths_at_once_are_those_made_one_by_one(base: Checkpoint, tmp_path: Path) -> None:
    plans = [plan_prune(base, range(depth)) for depth in (1, 2, 3)] + [plan_grow(base, Growth(6))]
    targets = [tmp_path / f"together-{number}.st" for number in range(4)]
    write_checkpoints(list(zip(plans, targets, strict=True)))
    for number, plan in enumerate(plans):
        alone = write_checkpoint(plan, tmp_path / f"alone-{number}.st")
        assert alone.read_bytes() == targets[number].read_bytes()
    with pytest.raises(UsageError, match="same name"):
        write_checkpoints([(plans[0], tmp_path / "x.st"), (plans[1], tmp_path / "x.st")])


def test_choose_blocks() -> None:
    assert choose_blocks([5, 1, 3, 3, 2], 3) == [0, 2, 3]
    assert choose_blocks([1, 1, 1, 1], 2) == [0, 1]
    assert choose_blocks([0.1, 9, 8, 7, 0.2], 3, protect_head=1, protect_tail=1) == [0, 1, 4]
    for keep in (0, -1, 6):
        with pytest.raises(UsageError):
            choose_blocks([1.0] * 5, keep)
    with pytest.raises(UsageError):
        choose_blocks([1.0] * 5, 2, protect_head=2, protect_tail=1)
    with pytest.raises(InputError):
        choose_blocks([1.0, float("nan")], 1)


def test_choose_span_against_all_spans() -> None:
    """Brute force: of every span of the right length, one of least importance goes, and it is the last of those."""
    generator = torch.Generator().manual_seed(0)
    for trial in range(40):
        total = 2 + trial % 7
        values = torch.randint(0, 4, (total,), generator=generator).tolist()
        for keep in range(1, total + 1):
            head, tail = trial % 2, (trial // 2) % 2
            if head + tail > keep:
                continue
            spans = {
                sum(values[start : start + total - keep]): start
                for start in range(head, total - tail - (total - keep) + 1)
            }
            start = spans[min(spans)]
            expected = [block for block in range(total) if not start <= block < start + total - keep]
            assert choose_span(values, keep, head, tail) == expected
    for keep in (0, 6):
        with pytest.raises(UsageError):
            choose_span([1.0] * 5, keep)


@pytest.mark.parametrize("keep", [[], [0, 0], [4], [-1]])
def test_impossible_pruning_is_a_usage_error(base: Checkpoint, keep: list[int]) -> None:
    with pytest.raises(UsageError):
        plan_prune(base, keep)


@pytest.mark.parametrize("direct", [False, True], ids=["buffered", "direct"])
def test_several_depths_read_the_source_once(
    base: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, direct: bool
) -> None:
    """Whoever wants the same part of the source gets it before the next is touched, whatever the way of writing."""
    monkeypatch.setattr(fill, "_PART", 8192)
    monkeypatch.setattr(fill, "_CHUNK", 8192)
    monkeypatch.setattr(direct_io, "DIRECT_FROM", 0 if direct else 1 << 62)
    offsets: list[int] = []
    read_into, copy = Sources.read_into, copy_module._by_copy_file_range

    def reading(self: Sources, file: Path, offset: int, out: memoryview) -> None:
        offsets.append(offset)
        read_into(self, file, offset, out)

    def copying(source: int, target: int, offset: int, at: int, count: int) -> int:
        offsets.append(offset)
        return copy(source, target, offset, at, count)

    monkeypatch.setattr(Sources, "read_into", reading)
    monkeypatch.setattr(copy_module, "_by_copy_file_range", copying)
    plans = [plan_prune(base, range(depth)) for depth in (1, 2, 3)]
    write_checkpoints([(plan, tmp_path / f"{n}.st") for n, plan in enumerate(plans)], workers=1)
    assert len(offsets) > 20
    # Windows of two files are cut at other places: never more than one behind the furthest byte that was read.
    furthest = 0
    for offset in offsets:
        assert offset > furthest - 2 * 8192
        furthest = max(furthest, offset)
