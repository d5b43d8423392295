"""The ways of copying give the same file, and only the end of a file is taken for its end."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from sanactl.bench.synthetic import TINY, synthetic_checkpoint, synthetic_plan
from sanactl.checkpoint import copy as copy_module
from sanactl.checkpoint import fill
from sanactl.checkpoint.copy import Sources, copy_span
from sanactl.checkpoint.fill import create_file, fill_files
from sanactl.checkpoint.open import Stamp, TensorRef, open_checkpoint
from sanactl.checkpoint.plan import Bytes, Normal, PlannedTensor, Zeros
from sanactl.checkpoint.write import write_checkpoint
from sanactl.errors import InputError, SanactlError
from sanactl.files import direct_io
from sanactl.files.progress import SILENT
from sanactl.files.threads import in_threads
from sanactl.surgery.grow import Growth, plan_grow
from sanactl.surgery.prune import plan_prune


def refuse(code: int | None) -> object:
    """A copying system call that fails, or that answers 0."""

    def call(*arguments: object) -> int:
        if code is None:
            return 0
        raise OSError(code, os.strerror(code))

    return call


@pytest.mark.parametrize("code", [errno.EXDEV, errno.ENOSYS, errno.EINVAL, None])
@pytest.mark.parametrize("left", ["sendfile", "read and write"])
def test_every_way_of_copying_gives_the_same_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: str, code: int | None
) -> None:
    base = open_checkpoint(synthetic_checkpoint(tmp_path / "base.st"))
    plain = write_checkpoint(plan_grow(base, Growth(9, "cyclic")), tmp_path / "plain.st").read_bytes()
    monkeypatch.setattr(os, "copy_file_range", refuse(code))
    if left == "read and write":
        monkeypatch.setattr(os, "sendfile", refuse(code))
    other = write_checkpoint(plan_grow(base, Growth(9, "cyclic")), tmp_path / "other.st").read_bytes()
    assert other == plain


def test_a_call_that_copies_little_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = open_checkpoint(synthetic_checkpoint(tmp_path / "base.st"))
    plain = write_checkpoint(plan_grow(base, Growth(9, "cyclic")), tmp_path / "plain.st").read_bytes()
    monkeypatch.setattr(copy_module, "_CHUNK", 1000)
    other = write_checkpoint(plan_grow(base, Growth(9, "cyclic")), tmp_path / "other.st").read_bytes()
    assert other == plain


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE])
@pytest.mark.parametrize(
    ("calls", "says"),
    [
        (["copy_file_range"], "a disk failed while {source} was copied"),
        (["pread", "preadv"], "cannot read {source}"),
        (["pwrite"], "cannot write {target}"),
    ],
)
def test_a_real_fault_is_not_taken_for_a_missing_ability(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: list[str], says: str, code: int
) -> None:
    base, target = open_checkpoint(synthetic_checkpoint(tmp_path / "base.st")), tmp_path / "x.st"
    plan = plan_grow(base, Growth(9, "interpolate"))
    for call in calls:
        monkeypatch.setattr(os, call, refuse(code))
    with pytest.raises(SanactlError, match=re.escape(says.format(source=base.path, target=target))) as caught:
        write_checkpoint(plan, target)
    assert os.strerror(code).lower() in str(caught.value).lower()
    assert os.listdir(tmp_path) == ["base.st"]


def test_a_source_that_ends_early_is_named(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(b"1234")
    sources = Sources({tmp_path / "short": Stamp.of(os.stat(tmp_path / "short"))})
    with (
        open(tmp_path / "target", "wb") as target,
        pytest.raises(InputError, match="short ended early, at byte 4"),
    ):
        list(copy_span(sources, tmp_path / "short", 0, target.fileno(), 0, 8))
    with pytest.raises(InputError, match="ended early"):
        sources.read(tmp_path / "short", 0, 8)
    sources.close()


def test_joined_spans_read_as_one(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(bytes(range(100)))
    sources = Sources({tmp_path / "x": Stamp.of(os.stat(tmp_path / "x"))})
    spans = Bytes(tuple(TensorRef(tmp_path / "x", at, 10, "U8", (10,)) for at in (50, 0, 90)))
    whole = bytes([*range(50, 60), *range(10), *range(90, 100)])
    for start in range(30):
        for count in range(30 - start):
            assert sources.read_joined(spans, start, count) == whole[start : start + count]
    sources.close()


@pytest.mark.parametrize("where", ["the job", "the list of jobs"])
def test_the_first_error_stops_all_threads(where: str) -> None:
    done = []

    def job(number: int) -> None:
        if where == "the job" and number == 5:
            raise ValueError(where)
        done.append(number)

    def jobs() -> Iterator[Callable[[], None]]:
        for number in range(10_000_000):
            if where == "the list of jobs" and number == 5:
                raise ValueError(where)
            yield partial(job, number)

    with pytest.raises(ValueError, match=where):
        in_threads(jobs(), 3)
    assert len(done) < 10_000_000


@pytest.mark.parametrize("how", ["direct", "refused", "short", "no such flag"])
@pytest.mark.parametrize("target", ["other.st", "folder"])
def test_writing_past_the_page_cache_gives_the_same_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, target: str
) -> None:
    base = open_checkpoint(synthetic_checkpoint(tmp_path / "base.st", PAGES, "BF16"))
    plans = [
        plan_grow(base, Growth(9)),
        plan_grow(base, Growth(9, "interpolate")),
        plan_prune(base, [0, 2]),
        plan_grow(base, Growth(7, "cyclic")),
    ]
    wholes = [write_checkpoint(plan, tmp_path / f"whole-{number}.st") for number, plan in enumerate(plans)]
    monkeypatch.setattr(direct_io, "DIRECT_FROM", 0)
    calls = []
    real = os.pwrite

    def pwrite(descriptor: int, data: memoryview, at: int) -> int:
        direct = hasattr(os, "O_DIRECT") and fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT
        if direct:
            calls.append((at, len(data)))
            if how == "refused":
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            if how == "short" and len(data) > 4096:
                return real(descriptor, data[:4096], at)
        return real(descriptor, data, at)

    monkeypatch.setattr(os, "pwrite", pwrite)
    if how == "no such flag":
        monkeypatch.delattr(os, "O_DIRECT")
    for number, (plan, whole) in enumerate(zip(plans, wholes, strict=True)):
        other = write_checkpoint(plan, tmp_path / f"{number}-{target}", shard_size="100KB")
        if target == "folder":
            expected = {n: t.shape for n, t in plan.tensors.items()}
            assert {n: t.shape for n, t in open_checkpoint(other).tensors.items()} == expected
            assert tensors_of(other) == tensors_of(whole)
        else:
            assert other.read_bytes() == whole.read_bytes()
    assert all(at % 4096 == count % 4096 == 0 for at, count in calls)
    assert bool(calls) == (how != "no such flag" and direct_io.open_direct(tmp_path / "base.st") is not None)


# matrices of whole pages, as those of the published widths are
PAGES = {**TINY, "attention_head_dim": 64, "cross_attention_head_dim": 64, "cross_attention_dim": 128}


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("able", ["always", "never again"])
def test_whole_pages_are_shared_where_the_file_system_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, able: str, direct: bool
) -> None:
    base = open_checkpoint(synthetic_checkpoint(tmp_path / "base.st", PAGES, "F32"))
    plans = {
        "grown.st": plan_grow(base, Growth(9)),
        "pruned.st": plan_prune(base, [0, 2]),
        "shards": plan_prune(base, [0, 1, 3]),
    }
    for name, plan in plans.items():
        write_checkpoint(plan, tmp_path / f"plain-{name}", shard_size="200KB")
    monkeypatch.setattr(direct_io, "DIRECT_FROM", 0 if direct else 1 << 62)
    monkeypatch.setattr(fill, "_SHARE_FROM", 4096)
    shared: list[int] = []

    def share(source: int, offset: int, target: int, at: int, count: int) -> bool:
        """As btrfs and XFS do: whole blocks or an error."""
        assert offset % 4096 == at % 4096 == count % 4096 == 0 < count
        if able == "never again" and shared:
            return False
        os.pwrite(target, os.pread(source, count, offset), at)
        shared.append(count)
        return True

    monkeypatch.setattr(direct_io, "share", share)
    for name, plan in plans.items():
        shared.clear()
        path = write_checkpoint(plan, tmp_path / name, shard_size="200KB")
        assert tensors_of(path) == tensors_of(tmp_path / f"plain-{name}")
        if able == "always":
            copied = sum(t.nbytes for t in plan.tensors.values() if isinstance(t.source, Bytes))
            assert sum(shared) > 0.8 * copied
    assert (tmp_path / "pruned.st").read_bytes() == (tmp_path / "plain-pruned.st").read_bytes()


@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_a_disk_that_can_share_blocks_does(tmp_path: Path, kind: str) -> None:
    make = shutil.which(f"mkfs.{kind}")
    if make is None or os.geteuid() != 0:
        pytest.skip(f"no mkfs.{kind} here, or not root")
    image, disk = tmp_path / "image", tmp_path / "disk"
    disk.mkdir()
    with image.open("wb") as file:
        file.truncate(400 << 20)
    subprocess.run([make, image], check=True, capture_output=True)
    if subprocess.run(["mount", "-o", "loop", image, disk], capture_output=True).returncode:
        pytest.skip(f"{kind} cannot be mounted here")
    try:
        plan = synthetic_plan({**PAGES, "num_layers": 60}, "F32")
        base = open_checkpoint(write_checkpoint(plan, disk / "base.st"))
        os.sync()
        free = shutil.disk_usage(disk).free
        pruned = write_checkpoint(plan_prune(base, [*range(20), *range(30, 60)]), disk / "pruned.st")
        os.sync()
        assert free - shutil.disk_usage(disk).free < 0.2 * pruned.stat().st_size
        elsewhere = write_checkpoint(plan_prune(base, [*range(20), *range(30, 60)]), tmp_path / "pruned.st")
        assert pruned.read_bytes() == elsewhere.read_bytes()
    finally:
        subprocess.run(["umount", disk], check=True)


def tensors_of(path: Path) -> dict[str, bytes]:
    """Every tensor's bytes."""
    found = open_checkpoint(path).tensors
    return {name: ref.file.read_bytes()[ref.offset : ref.offset + ref.nbytes] for name, ref in found.items()}


def test_zeros_are_holes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct_io, "DIRECT_FROM", 0)
    zeros = {"a": (100,), "b": (1 << 20,), "c": (3,)}
    tensors = {
        name: PlannedTensor("F32", shape, Normal(1.0, 0, name) if name != "b" else Zeros())
        for name, shape in zeros.items()
    }
    path = tmp_path / "x.st"
    with contextlib.ExitStack() as stack:
        file = create_file(path, tensors, {})
        stack.callback(file.close)
        fill_files([file], Sources({}), SILENT, 2)
    assert path.stat().st_size > 4 << 20
    assert path.stat().st_blocks * 512 < 1 << 20
