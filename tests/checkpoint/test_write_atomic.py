"""A write is all or nothing: errors, kills, full disks, two writers, and what others leave behind."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sanactl.bench.synthetic import TINY, synthetic_checkpoint, synthetic_plan
from sanactl.checkpoint.open import open_checkpoint
from sanactl.checkpoint.write import write_checkpoint
from sanactl.errors import InputError, OutputExistsError, SanactlError, UsageError
from sanactl.files import atomic
from sanactl.files.atomic import atomic_dir, atomic_path, check_target
from sanactl.files.temporaries import reclaim
from sanactl.surgery.grow import Growth, plan_grow
from sanactl.surgery.prune import plan_prune


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_a_finished_write_appears_whole_with_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("x")
    with atomic_path(tmp_path / "x") as temporary:
        assert names(tmp_path) == sorted(["plain", temporary.name])
        temporary.write_text("done")
    assert names(tmp_path) == ["plain", "x"]
    assert (tmp_path / "x").read_text() == "done"
    assert (tmp_path / "x").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError, OSError])
@pytest.mark.parametrize("write", [atomic_path, atomic_dir])
def test_an_exception_leaves_nothing(tmp_path: Path, write: type, error: type[BaseException]) -> None:
    with pytest.raises(error), write(tmp_path / "x") as temporary:
        (temporary / "part" if temporary.is_dir() else temporary).write_text("half")
        raise error
    assert names(tmp_path) == []


@pytest.mark.parametrize("write", [atomic_path, atomic_dir])
def test_an_existing_target_is_kept_without_force(tmp_path: Path, write: type) -> None:
    (tmp_path / "x").write_text("old")
    with pytest.raises(OutputExistsError, match="--force"), write(tmp_path / "x"):
        raise AssertionError
    (tmp_path / "x").unlink()
    os.symlink("nowhere", tmp_path / "x")  # a dangling link is there too
    with pytest.raises(OutputExistsError), write(tmp_path / "x"):
        raise AssertionError


def test_a_target_made_meanwhile_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for native in (True, False):
        if not native:
            monkeypatch.setattr(atomic, "renameat2", lambda *_: False)
        with (
            pytest.raises(OutputExistsError, match="another process"),
            atomic_path(tmp_path / "x") as temporary,
        ):
            temporary.write_text("mine")
            (tmp_path / "x").write_text("theirs")
        assert (tmp_path / "x").read_text() == "theirs"
        assert names(tmp_path) == ["x"]
        (tmp_path / "x").unlink()
        with pytest.raises(OutputExistsError, match="another process"), atomic_dir(tmp_path / "d"):
            (tmp_path / "d").mkdir()
            (tmp_path / "d" / "theirs").touch()
        assert names(tmp_path / "d") == ["theirs"]
        shutil.rmtree(tmp_path / "d")


@pytest.mark.parametrize("native", [True, False])
def test_force_replaces_files_links_and_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, native: bool
) -> None:
    if not native:
        monkeypatch.setattr(atomic, "renameat2", lambda *_: False)
    (tmp_path / "real").write_text("real")
    os.symlink("real", tmp_path / "x")
    with atomic_path(tmp_path / "x", force=True) as temporary:
        temporary.write_text("new")
    assert (tmp_path / "real").read_text() == "real"
    assert not (tmp_path / "x").is_symlink()
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "old").touch()
    with atomic_dir(tmp_path / "d", force=True) as folder:
        (folder / "new").touch()
    assert names(tmp_path / "d") == ["new"]
    assert names(tmp_path) == ["d", "real", "x"]


def test_clear_words_for_places_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(SanactlError, match="mkdir -p"), atomic_path(tmp_path / "no" / "x"):
        raise AssertionError
    (tmp_path / "file").touch()
    with pytest.raises(SanactlError, match="not a folder"), atomic_path(tmp_path / "file" / "x"):
        raise AssertionError
    with pytest.raises(UsageError), atomic_path(Path("/")):
        raise AssertionError


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(SanactlError, match="no permission"), atomic_path(tmp_path / "x"):
            raise AssertionError
    finally:
        tmp_path.chmod(0o700)


def test_long_names_fit_and_longer_ones_are_refused_before_the_work(tmp_path: Path) -> None:
    with atomic_path(tmp_path / ("x" * 250)) as temporary:
        temporary.write_text("x")
    for path in (tmp_path / ("x" * 300), tmp_path / ("x" * 300) / "y"):
        with pytest.raises(SanactlError, match="too long"):
            check_target(path)


REFUSALS = [errno.EPERM, errno.EINVAL, errno.ENOTSUP, errno.ENOSYS]
CALLS = ["chmod", "fsync"]


def failing(monkeypatch: pytest.MonkeyPatch, call: str, code: int) -> list[int]:
    """Lets a call of the operating system fail; the list grows by each time that it was asked."""
    asked: list[int] = []

    def fail(*_: object, **__: object) -> None:
        asked.append(code)
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, call, fail)
    return asked


def write_oddly(path: Path) -> None:
    """As some libraries do: a new file, with permissions of its own, in the place of the one that was there."""
    other = path.with_name("other")
    other.write_text("done")
    os.close(os.open(other, os.O_RDONLY))
    subprocess.run(["chmod", "600", other], check=True)
    other.replace(path)


@pytest.mark.parametrize("code", REFUSALS, ids=errno.errorcode.get)
@pytest.mark.parametrize("call", CALLS)
def test_a_file_system_that_has_no_permissions_or_flush_is_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    asked = failing(monkeypatch, call, code)
    with atomic_path(tmp_path / "x") as temporary:
        write_oddly(temporary)
    assert (tmp_path / "x").read_text() == "done"
    with atomic_dir(tmp_path / "d") as folder:
        (folder / "in").write_text("done")
    assert asked
    assert names(tmp_path) == ["d", "x"]


@pytest.mark.parametrize(
    ("code", "says"), [(errno.EIO, "input/output error"), (errno.ENOSPC, "no space left")]
)
@pytest.mark.parametrize("call", CALLS)
def test_a_disk_that_fails_is_not_taken_for_one_that_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int, says: str
) -> None:
    failing(monkeypatch, call, code)
    with (
        pytest.raises(SanactlError, match=rf"cannot write \S+/x: {says}"),
        atomic_path(tmp_path / "x") as path,
    ):
        write_oddly(path)
    if call == "fsync":
        with pytest.raises(SanactlError, match=rf"cannot write \S+/d: {says}"), atomic_dir(tmp_path / "d"):
            pass
    assert names(tmp_path) == []


def test_a_temporary_that_someone_removes_is_named_by_its_target(tmp_path: Path) -> None:
    match = r"cannot write \S+/x: another program removed"
    with pytest.raises(SanactlError, match=match), atomic_path(tmp_path / "x") as temporary:
        temporary.unlink()


_CHILD = """
import signal, sys, threading
from pathlib import Path
from sanactl.files import atomic
from sanactl.files.progress import Progress
from sanactl.bench.synthetic import TINY, synthetic_checkpoint

target, pause_at = Path(sys.argv[1]), sys.argv[2]

interrupted = threading.Event()

def interrupt(*_):
    interrupted.set()
    raise KeyboardInterrupt

signal.signal(signal.SIGINT, interrupt)

def pause():
    print("paused", flush=True)
    interrupted.wait(60)

class Pausing(Progress):
    count = 0
    def advance(self, count=1, **fields):
        self.count += 1
        if str(self.count) == pause_at:
            pause()

if pause_at == "before the rename":
    rename = atomic.renameat2
    atomic.renameat2 = lambda *arguments: pause() or rename(*arguments)
if pause_at == "after the rename":
    atomic._sync_folder = lambda folder: pause() if target.exists() else None
options = {} if target.suffix else {"shard_size": "30KB"}
synthetic_checkpoint(target, progress=Pausing(), workers=1, **options)
"""


@pytest.mark.parametrize("target", ["big.st", "big"])
@pytest.mark.parametrize("pause_at", ["1", "60", "100", "before the rename", "after the rename"])
@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_write_leaves_nothing_or_all(
    tmp_path: Path, target: str, pause_at: str, sign: signal.Signals
) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(tmp_path / target), pause_at],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"paused\n"
    child.send_signal(sign)
    child.communicate()
    assert child.returncode != 0
    done = pause_at == "after the rename"
    if sign == signal.SIGKILL and not done:
        assert len(names(tmp_path)) == 1
        assert names(tmp_path)[0].startswith(f".{target}.")
    reclaim(tmp_path, again=True)  # as the next write into this folder does
    assert names(tmp_path) == ([target] if done else [])
    if done:
        assert open_checkpoint(tmp_path / target).num_blocks == 4


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    base = open_checkpoint(synthetic_checkpoint(tmp_path / "base.st"))
    before = names(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        for target in ("x.st", "x"):
            with pytest.raises(SanactlError, match="limit on file sizes"):
                write_checkpoint(plan_grow(base, Growth(9)), tmp_path / target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert names(tmp_path) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_a_disk_that_fills_up_while_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        plan = synthetic_plan({**TINY, "num_layers": 40})
        with pytest.raises(SanactlError, match="GB are free"):
            write_checkpoint(plan, disk / "x.st")
        monkeypatch.setattr("sanactl.checkpoint.write._check_space", lambda *_: None)
        for target in ("x.st", "x"):
            with pytest.raises(SanactlError, match="no space left"):
                write_checkpoint(plan, disk / target)
            assert names(disk) == []
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        with pytest.raises(SanactlError, match="read-only"):
            write_checkpoint(plan, disk / "x.st")
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_source_that_is_rewritten_is_noticed_and_one_that_is_replaced_does_no_harm(tmp_path: Path) -> None:
    path = synthetic_checkpoint(tmp_path / "base.st")
    plan = plan_prune(open_checkpoint(path), [0, 1])
    synthetic_checkpoint(path, seed=1, force=True)
    with pytest.raises(InputError, match="changed since it was opened"):
        write_checkpoint(plan, tmp_path / "x.st")
    plan = plan_prune(open_checkpoint(path), [0, 1])
    with open(path, "r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(b"abcd")
    with pytest.raises(InputError, match="changed"):
        write_checkpoint(plan, tmp_path / "x.st")
    path.unlink()
    with pytest.raises(InputError, match="cannot read"):
        write_checkpoint(plan, tmp_path / "x.st")
    assert names(tmp_path) == []


def test_a_checkpoint_can_replace_its_own_source(tmp_path: Path) -> None:
    path = synthetic_checkpoint(tmp_path / "base.st")
    write_checkpoint(plan_prune(open_checkpoint(path), [1, 3]), path, force=True)
    assert open_checkpoint(path).num_blocks == 2


def test_two_writers_give_one_whole_file(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _CHILD, str(tmp_path / "big.st"), "never"]
    children = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(2)]
    errors = [child.communicate()[1].decode() for child in children]
    assert sorted(bool(child.returncode) for child in children) == [False, True]
    assert any("OutputExistsError" in error for error in errors)
    assert open_checkpoint(tmp_path / "big.st").num_blocks == 4
    assert names(tmp_path) == ["big.st"]


def test_force_never_sweeps_away_a_folder_of_other_things(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").touch()
    with pytest.raises(SanactlError, match=r"cat\.png"):
        synthetic_checkpoint(tmp_path / "photos", force=True)
    synthetic_checkpoint(tmp_path / "model")
    synthetic_checkpoint(tmp_path / "model", seed=1, force=True)
    assert names(tmp_path) == ["model", "photos"]


def test_names_that_are_no_checkpoint_are_refused(tmp_path: Path) -> None:
    for name in ("x.bin", "x.ckpt", "x.pth"):
        with pytest.raises(UsageError):
            synthetic_checkpoint(tmp_path / name)
