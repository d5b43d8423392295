"""Results kept for a later run: found again, torn lines passed over, nothing of another run's taken away."""

from __future__ import annotations

import os
import resource
import signal
import time
from pathlib import Path

import pytest

from sanactl.records.partial import Partial, image_key

IDENTITY = {"judge": "red"}


def keys(count: int) -> list[str]:
    return [f"{i:032x}" for i in range(count)]


def files(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name.endswith(".partial"))


def kept(folder: Path, count: int, **identity: str) -> None:
    """A run that was stopped after `count` results."""
    partial = Partial(folder, "judge", identity or IDENTITY)
    for i, key in enumerate(keys(count)):
        partial.put([(key, {"value": i / 3})])
    partial.close()


def test_results_are_found_again_and_removed_at_the_end(tmp_path: Path) -> None:
    kept(tmp_path, 5)
    partial = Partial(tmp_path, "judge", IDENTITY)
    assert [partial.get(key) for key in keys(6)] == [*({"value": i / 3} for i in range(5)), None]
    partial.put([(keys(6)[5], {"value": 9})])
    assert len(files(tmp_path)) == 2
    partial.done()
    assert files(tmp_path) == []


def test_nothing_is_written_where_nothing_is_kept(tmp_path: Path) -> None:
    partial = Partial(tmp_path, "judge", IDENTITY)
    partial.put([(None, {"value": 1})])
    assert partial.get(None) is None
    partial.done()
    assert list(tmp_path.iterdir()) == []


def test_another_identity_is_another_matter(tmp_path: Path) -> None:
    kept(tmp_path, 2)
    partial = Partial(tmp_path, "judge", {"judge": "blue"})
    assert partial.get(keys(1)[0]) is None
    partial.put([(keys(1)[0], {"value": 7})])
    partial.done()
    assert len(files(tmp_path)) == 1
    assert Partial(tmp_path, "judge", IDENTITY).get(keys(1)[0]) == {"value": 0.0}


def test_what_was_not_used_stays(tmp_path: Path) -> None:
    """Two stopped runs over different images; one of them is gone on with."""
    kept(tmp_path, 4)
    partial = Partial(tmp_path, "judge", IDENTITY)
    assert [partial.get(key) is not None for key in keys(3)] == [True] * 3
    partial.done()
    assert Partial(tmp_path, "judge", IDENTITY).get(keys(4)[3]) == {"value": 1.0}


@pytest.mark.parametrize("cut", [1, 3, 20, 40, 50])
def test_a_torn_line_is_passed_over(tmp_path: Path, cut: int) -> None:
    kept(tmp_path, 3)
    (name,) = files(tmp_path)
    os.truncate(tmp_path / name, (tmp_path / name).stat().st_size - cut)
    partial = Partial(tmp_path, "judge", IDENTITY)
    found = [partial.get(key) for key in keys(3)]
    assert found[0] == {"value": 0.0}
    assert found[2] is None


def test_damage_is_no_failure(tmp_path: Path) -> None:
    kept(tmp_path, 1)
    (name,) = files(tmp_path)
    good = (tmp_path / name).read_bytes()
    lines = [b"", b"\xff\xfe", keys(1)[0].encode(), b"x" * 5_000_000, keys(3)[1].encode() + b" [1]"]
    lines += [keys(3)[2].encode() + b" " + b"[" * 10_000]
    (tmp_path / name).write_bytes(b"\n".join([*lines, good]))
    os.mkfifo(tmp_path / name.replace(".partial", "-2.partial"))
    (tmp_path / name.replace(".partial", "-3.partial")).mkdir()
    partial = Partial(tmp_path, "judge", IDENTITY)
    assert [partial.get(key) for key in keys(3)] == [{"value": 0.0}, None, None]
    partial.put([(keys(4)[3], {"value": 1})])
    partial.done()


def test_runs_at_the_same_time_keep_out_of_each_others_way(tmp_path: Path) -> None:
    kept(tmp_path, 2)
    one, two = Partial(tmp_path, "judge", IDENTITY), Partial(tmp_path, "judge", IDENTITY)
    for number, partial in enumerate((one, two)):
        for key in keys(2):
            assert partial.get(key) is not None
        partial.put([(keys(9)[5 + number], {"value": number})])
    assert len(files(tmp_path)) == 3
    three = Partial(tmp_path, "judge", IDENTITY)
    assert [three.get(key) for key in keys(9)[5:7]] == [{"value": 0}, {"value": 1}]
    one.done()
    three.done()
    # The second is still at work: its file stays, though the third has used all that is in it.
    assert len(files(tmp_path)) == 1
    two.put([(keys(9)[8], {"value": 8})])
    two.close()
    assert Partial(tmp_path, "judge", IDENTITY).get(keys(9)[8]) == {"value": 8}


def test_what_nobody_went_on_with_goes_after_a_week(tmp_path: Path) -> None:
    kept(tmp_path, 1, judge="old")
    kept(tmp_path, 1, judge="new")
    week = time.time() - 8 * 24 * 3600
    old = next(p for p in tmp_path.iterdir())
    os.utime(old, (week, week))
    (tmp_path / ".judge.partial").write_text("a stranger's")
    os.utime(tmp_path / ".judge.partial", (week, week))
    Partial(tmp_path, "eval", {}).close()
    assert old.name not in files(tmp_path)
    assert len(files(tmp_path)) == 2


def test_where_nothing_can_be_kept_one_line_says_so(tmp_path: Path) -> None:
    said: list[str] = []
    partial = Partial(tmp_path / "gone", "judge", IDENTITY, tell=said.append)
    for key in keys(3):
        partial.put([(key, {"value": 1})])
    partial.done()
    assert len(said) == 1


def test_a_full_disk_tears_no_line(tmp_path: Path) -> None:
    """A limit on file size stands for it."""
    said: list[str] = []
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    partial = Partial(tmp_path, "judge", IDENTITY, tell=said.append)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limit[1]))
        for i, key in enumerate(keys(5)):
            partial.put([(key, {"value": i})])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    partial.close()
    assert len(said) == 1
    (name,) = files(tmp_path)
    assert (tmp_path / name).read_bytes().endswith(b"}\n")
    again = Partial(tmp_path, "judge", IDENTITY)
    assert [again.get(key) for key in keys(3)] == [{"value": 0}, {"value": 1}, None]


def test_the_key_of_an_image(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"one")
    record = {"path": str(path), "prompt": "a star"}
    key = image_key(record)
    assert key == image_key(dict(reversed(record.items())))
    assert key != image_key({**record, "prompt": "a circle"})
    path.write_bytes(b"another")
    assert key != image_key(record)
    assert image_key({**record, "path": str(tmp_path / "gone.png")}) is None
