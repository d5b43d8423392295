"""The ways of copying give the same file, and only the end of a file is taken for its end."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from sanactl.errors import InputError, SanactlError
from sanactl.io import ckpt_copy
from sanactl.io.checkpoint import Stamp, TensorRef, open_checkpoint
from sanactl.io.ckpt_copy import Sources, copy_span, in_threads
from sanactl.io.ckpt_plan import Bytes
from sanactl.io.writer import write_checkpoint
from sanactl.surgery.bench import synthetic_checkpoint
from sanactl.surgery.grow import plan_grow


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
    plain = write_checkpoint(plan_grow(base, 9, "cyclic"), tmp_path / "plain.st").read_bytes()
    monkeypatch.setattr(os, "copy_file_range", refuse(code))
    if left == "read and write":
        monkeypatch.setattr(os, "sendfile", refuse(code))
    other = write_checkpoint(plan_grow(base, 9, "cyclic"), tmp_path / "other.st").read_bytes()
    assert other == plain


def test_a_call_that_copies_little_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = open_checkpoint(synthetic_checkpoint(tmp_path / "base.st"))
    plain = write_checkpoint(plan_grow(base, 9, "cyclic"), tmp_path / "plain.st").read_bytes()
    monkeypatch.setattr(ckpt_copy, "_CHUNK", 1000)
    other = write_checkpoint(plan_grow(base, 9, "cyclic"), tmp_path / "other.st").read_bytes()
    assert other == plain


def test_a_real_fault_is_not_taken_for_a_missing_ability(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = open_checkpoint(synthetic_checkpoint(tmp_path / "base.st"))
    monkeypatch.setattr(os, "copy_file_range", refuse(errno.EIO))
    with pytest.raises(SanactlError, match="Input/output error"):
        write_checkpoint(plan_grow(base, 9, "cyclic"), tmp_path / "x.st")
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


@pytest.mark.parametrize("where", ["job", "meanwhile"])
def test_the_first_error_stops_all_threads(where: str) -> None:
    done = []

    def job(number: int) -> None:
        if where == "job" and number == 5:
            raise ValueError("job")
        done.append(number)

    def meanwhile() -> None:
        if where == "meanwhile":
            raise ValueError("meanwhile")

    jobs = ((lambda number=number: job(number)) for number in range(10_000_000))
    with pytest.raises(ValueError, match=where):
        in_threads(jobs, 3, meanwhile)
    assert len(done) < 10_000_000
