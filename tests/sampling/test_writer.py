"""Images are written in a thread: results come in order, once their batch is on disk, and an error loses no other batch."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from sanactl.errors import SanactlError
from sanactl.files import atomic
from sanactl.files.atomic import write_files
from sanactl.sampling.writer import Writer


def test_results_come_in_order_and_after_their_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sanactl.sampling.writer._FIRST", 0.01)
    written: list[int] = []
    release = threading.Event()

    def write(items: Sequence[int]) -> None:
        release.wait(10)
        written.extend(items)

    with Writer[int, str](write) as writer:
        assert list(writer.put([], "there already")) == ["there already"]  # at once
        assert list(writer.put([1, 2], "first")) == []
        assert list(writer.put([], "behind it")) == []
        assert written == []
        release.set()
        found = []
        for number in range(3, 9):
            for result in writer.put([number], str(number)):
                assert result in ("first", "behind it") or int(result) in written
                found.append(result)
        found += writer.rest()
    assert found == ["first", "behind it", *map(str, range(3, 9))]
    assert written == list(range(1, 9))


def test_an_error_comes_after_the_results_before_it() -> None:
    written: list[int] = []

    def write(items: Sequence[int]) -> None:
        if 3 in items:
            raise SanactlError("disk full")
        written.extend(items)

    found: list[int] = []
    with pytest.raises(SanactlError, match="disk full"), Writer[int, int](write) as writer:
        for number in range(1, 9):
            for result in writer.put([number], number):
                found.append(result)
        for result in writer.rest():
            found.append(result)
    assert found == written == [1, 2]


def test_what_was_handed_in_is_written_when_its_reader_stops() -> None:
    written: list[int] = []
    with pytest.raises(KeyboardInterrupt), Writer[int, int](written.extend) as writer:
        list(writer.put([1], 1))
        list(writer.put([2], 2))
        raise KeyboardInterrupt
    assert written == [1, 2]


def test_files_are_whole_with_one_flush(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[Path] = []

    def flush(path: Path) -> bool:
        flushed.append(path)
        return True

    monkeypatch.setattr(atomic, "syncfs", flush)
    targets = {tmp_path / f"{n}.png": bytes([n]) * 10 for n in range(3)}
    (tmp_path / "1.png").write_text("old")
    write_files(targets)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == targets
    assert len(flushed) == 1  # and one of their folder
    write_files({})


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_fails_leaves_no_half_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def fail(*_: object) -> bool:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(atomic, "syncfs", lambda path: False)
    monkeypatch.setattr(atomic, "_sync", fail)
    with pytest.raises(SanactlError, match="cannot write"):
        write_files({tmp_path / "a.png": b"a", tmp_path / "b.png": b"b"})
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SanactlError, match="does not exist"):
        write_files({tmp_path / "gone/a.png": b"a"})
