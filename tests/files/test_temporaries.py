"""A live writer's temporary is never taken for a leftover, and a dead one's always is."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sanactl.errors import SanactlError
from sanactl.files import temporaries
from sanactl.files.atomic import scratch_folder
from sanactl.files.temporaries import make_file, make_folder, reclaim, set_aside


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


_WRITER = """
import os, subprocess, sys, time
from sanactl.files.atomic import atomic_dir, atomic_path

write, child = {"file": atomic_path, "folder": atomic_dir}[sys.argv[2]], sys.argv[3]
with write(sys.argv[1]) as temporary:
    if sys.argv[2] == "file":
        temporary.write_text("half")  # opened and closed again, which must not end the lock
    else:
        (temporary / "part").write_text("half")
    orphan = 0
    if child == "forked":
        orphan = os.fork()
        if not orphan:
            time.sleep(60)
            os._exit(0)
    elif child == "started":
        orphan = subprocess.Popen(["sleep", "60"], close_fds=False, stdout=subprocess.DEVNULL).pid
    print(orphan, flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def writer(target: Path, kind: str, child: str = "none") -> Iterator[subprocess.Popen[bytes]]:
    """A process in the middle of a write, and perhaps one that it started and that outlives it."""
    process = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(target), kind, child],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    orphan = int(process.stdout.readline())
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if orphan:
            os.kill(orphan, signal.SIGKILL)


@pytest.mark.parametrize("child", ["none", "forked", "started"])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_the_lock_lasts_as_long_as_its_process_and_no_longer(tmp_path: Path, kind: str, child: str) -> None:
    with writer(tmp_path / "x", kind, child) as process:
        (temporary,) = names(tmp_path)
        assert reclaim(tmp_path, again=True) == []
        assert names(tmp_path) == [temporary]
        process.kill()
        process.wait()
        for _ in range(500):
            reclaim(tmp_path, again=True)
            if not names(tmp_path):
                break
            time.sleep(0.02)  # a forked child may not have had its turn yet
        assert names(tmp_path) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a PID namespace")
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_container_with_process_ids_of_its_own_leaves_it_alone(tmp_path: Path, kind: str) -> None:
    code = "import sys; from pathlib import Path; from sanactl.files.temporaries import reclaim; reclaim(Path(sys.argv[1]))"
    inside = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", code, str(tmp_path)]
    with writer(tmp_path / "x", kind) as process:
        before = names(tmp_path)
        if subprocess.run(inside, capture_output=True).returncode:
            pytest.skip("no PID namespace can be made here")
        assert names(tmp_path) == before
        process.communicate(b"")
        assert process.returncode == 0
    assert names(tmp_path) == ["x"]


def test_a_folder_for_the_work_alone_is_gone_afterwards(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), scratch_folder(tmp_path / "work") as folder:
        (folder / "part").touch()
        assert reclaim(tmp_path, again=True) == []
        raise ZeroDivisionError
    assert names(tmp_path) == []
    with pytest.raises(SanactlError, match="does not exist"), scratch_folder(tmp_path / "no" / "work"):
        raise AssertionError


def test_what_cannot_be_told_by_a_lock_is_told_by_its_age(tmp_path: Path) -> None:
    host, boot = temporaries._machine()
    long_ago, yesterday = 1.0, time.time() - 24 * 3600
    before_start = temporaries._started() - 100
    kept = {
        f".x.{host}-00000000-00000000.tmp": time.time(),  # of this machine before its start, or of one of its name?
        ".x.00000000-00000000-00000000.tmp": yesterday,  # of another machine
        ".x.tmp": long_ago,  # of another program
        f".x.{host}-4711-00000000.tmp": long_ago,
    }
    gone = {
        f".x.{host}-{boot}-00000000.tmp": time.time(),
        f".y.00000000-{boot}-00000000.tmp": time.time(),  # a container's on this machine
        f".x.{host}-00000000-11111111.tmp": before_start,
        ".x.00000000-00000000-11111111.tmp": long_ago,
    }
    for name, written in (kept | gone).items():
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (written, written))
        folder = tmp_path / f"..folder{name}"
        if name in gone:
            folder.mkdir()
            (folder / "part").touch()
            os.utime(folder, (written, written))
    reclaim(tmp_path, again=True)
    assert names(tmp_path) == sorted(kept)


def test_a_folder_that_was_set_aside_comes_back_unless_another_took_its_place(tmp_path: Path) -> None:
    asides = []
    for name in ("alone", "replaced"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "old").touch()
        asides.append(set_aside(tmp_path / name))
    assert reclaim(tmp_path, again=True) == []  # between the two renames of a live writer
    (tmp_path / "replaced").mkdir()
    for aside in asides:
        aside.release()  # as its death does
    assert len(reclaim(tmp_path, again=True)) == 2
    assert names(tmp_path) == ["alone", "replaced"]
    assert names(tmp_path / "alone") == ["old"]
    assert names(tmp_path / "replaced") == []


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS, errno.EBADF, None])
def test_a_file_system_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int | None
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code or 0))

    if code is None:
        monkeypatch.setattr(temporaries, "fcntl", None)
    else:
        monkeypatch.setattr(temporaries.fcntl, "flock", refuse)
        monkeypatch.setattr(temporaries.fcntl, "fcntl", refuse)
    made = [make_file(tmp_path / "x"), make_folder(tmp_path / "x")]
    assert reclaim(tmp_path, again=True) == []
    for temporary in made:
        os.utime(temporary.path, (1, 1))
    assert sorted(reclaim(tmp_path, again=True)) == sorted(temporary.path for temporary in made)


def test_an_old_kernel_locks_the_whole_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = temporaries.fcntl.fcntl

    def fcntl(descriptor: int, command: int, *rest: Any) -> Any:
        if command == temporaries.fcntl.F_OFD_SETLK:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return real(descriptor, command, *rest)

    monkeypatch.setattr(temporaries.fcntl, "fcntl", fcntl)
    temporary = make_file(tmp_path / "x")
    assert reclaim(tmp_path, again=True) == []
    temporary.release()
    assert reclaim(tmp_path, again=True) == [temporary.path]


@pytest.mark.parametrize("make", [make_file, make_folder])
def test_one_that_is_taken_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: type
) -> None:
    real, done = temporaries._lock, list[str]()

    def lock(descriptor: int) -> bool | None:
        if len(done) < 2:
            done.append("")
            path = tmp_path / names(tmp_path)[0]
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            return len(done) == 1 and real(descriptor)  # the other had it, and has let go of it; has it still
        return real(descriptor)

    monkeypatch.setattr(temporaries, "_lock", lock)
    temporary = make(tmp_path / "x")
    assert names(tmp_path) == [temporary.path.name]
    assert reclaim(tmp_path, again=True) == []
    temporary.remove()
    assert names(tmp_path) == []


_BUSY = """
import sys
from pathlib import Path
from typing import Any
from sanactl.files.atomic import atomic_dir, atomic_path
for number in range(40):
    with atomic_path(f"{sys.argv[1]}-{number}") as file, atomic_dir(f"{sys.argv[1]}-{number}-d") as folder:
        file.write_text("done")
        (folder / "part").write_text("done")
"""


def test_writers_and_cleaners_at_the_same_time(tmp_path: Path) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", _BUSY, str(tmp_path / name)]) for name in "ab"]
    while any(process.poll() is None for process in writers):
        reclaim(tmp_path, again=True)
    assert [process.returncode for process in writers] == [0, 0]
    assert len(names(tmp_path)) == 160
