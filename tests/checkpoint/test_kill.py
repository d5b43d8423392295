"""Kills at any byte and errors at any call of a write: nothing or all of the target, and the source as it was.

One process is started, and makes a child by fork for each kill: the real command line, whose writes are counted and
cut off at the byte where it dies.
"""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sanactl.bench.synthetic import TINY, synthetic_checkpoint
from sanactl.checkpoint import fill
from sanactl.cli.app import main
from sanactl.files import direct_io

CONFIG = {**TINY, "attention_head_dim": 16, "cross_attention_head_dim": 16, "cross_attention_dim": 32}
TASKS: dict[str, list[str]] = {
    "grow": ["grow", "base.st", "--to", "7"],
    "grow, interpolated": ["grow", "base.st", "--to", "6", "--init", "interpolate"],
    "prune": ["prune", "base.st", "--blocks", "0,2-3"],
    "convert": ["convert", "base.st"],
}

_KILLED = """
import json, os, signal, sys
from sanactl.cli.app import main
from sanactl.checkpoint import fill
from sanactl.files import direct_io
import numpy, sanactl.cli.grow, sanactl.cli.prune, sanactl.cli.convert, sanactl.cli.frame.surgery

arguments, direct, points, sign = json.loads(sys.argv[1])
fill._PART = fill._CHUNK = 8192
direct_io.DIRECT_FROM = 0 if direct else 1 << 62
target = arguments[-1]

def cut(name, count_of, shortened):
    real = getattr(os, name)
    def call(*given):
        count = count_of(*given)
        if left[0] is not None and count > left[0]:
            if left[0] > 0 and not (direct and name == "pwrite"):  # a direct write is whole pages or nothing
                real(*shortened(left[0], *given))
            # One SIGTERM is enough: who sends a second one does not want to wait for the cleaning.
            left[0] = -1 if sign == signal.SIGKILL else None
            os.kill(os.getpid(), sign)
            signal.pause() if sign == signal.SIGKILL else None
        elif left[0] is not None:
            left[0] -= count
            total[0] += count
        return real(*given)
    setattr(os, name, call)

left, total = [None], [0]
cut("pwrite", lambda fd, data, at: len(data), lambda n, fd, data, at: (fd, data[:n], at))
cut("copy_file_range", lambda s, t, n, *at: n, lambda n, s, t, count, *at: (s, t, n, *at))
cut("write", lambda fd, data: 0, None)

def run(stop):
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(write, 2)
        left[0] = stop
        os._exit(main(arguments))
    os.close(write)
    with open(read) as said:
        text = said.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), text

for stop in points:
    code, said = run(stop)
    after = sorted(os.listdir("."))
    again, _ = run(None)
    print(json.dumps([stop, code, said, after, again, sorted(os.listdir("."))]), flush=True)
    input()
"""


def whole(folder: Path, arguments: list[str]) -> tuple[dict[str, bytes], int]:
    """The files of an undisturbed run, and the bytes that it writes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(arguments) == 0
    made = files(folder / arguments[-1])
    return made, sum(map(len, made.values()))


def files(path: Path) -> dict[str, bytes]:
    """Every file of a folder, or the one that it is."""
    if path.is_dir():
        return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}
    return {"": path.read_bytes()}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kill")
    synthetic_checkpoint(folder / "base.st", CONFIG, "BF16")
    return folder


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM], ids=lambda s: s.name)
@pytest.mark.parametrize(
    ("task", "target", "direct"),
    [("grow", "new.st", True), ("grow", "new", False), ("prune", "new.st", False), ("convert", "new", True)],
)
def test_a_kill_at_any_byte_leaves_nothing_and_the_next_run_cleans_up(
    place: Path, tmp_path: Path, task: str, target: str, direct: bool, sign: signal.Signals
) -> None:
    shutil.copyfile(place / "base.st", tmp_path / "base.st")
    arguments = [*TASKS[task], "-o", target]
    expected, total = whole(tmp_path, arguments)
    remove(tmp_path / target)
    shutil.rmtree(tmp_path / ".sanactl")
    rng = random.Random(f"{task} {direct} {sign}")
    points = [0, 1, total // 2, *(rng.randrange(total * 9 // 10) for _ in range(4))]
    child = subprocess.Popen(
        [sys.executable, "-c", _KILLED, json.dumps([arguments, direct, points, sign])],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdin is not None and child.stdout is not None
    source, killed = (tmp_path / "base.st").read_bytes(), 0
    for point in points:
        stop, code, said, after, again, names = json.loads(child.stdout.readline())
        assert stop == point
        assert (tmp_path / "base.st").read_bytes() == source
        if code == 0:  # fewer bytes were written than the files have: their zeros are holes
            assert sign == signal.SIGTERM or target in after
        else:
            killed += 1
            assert code == (-signal.SIGKILL if sign == signal.SIGKILL else 130), said
            assert target not in after
            left = [name for name in after if name.startswith(f".{target}.")]
            assert len(left) == (sign == signal.SIGKILL), after
            if sign == signal.SIGTERM:
                assert said.strip().splitlines()[-1] == "sanactl: interrupted"
                assert "Traceback" not in said
        assert again == 0
        assert names == [".sanactl", "base.st", target]
        assert files(tmp_path / target) == expected
        remove(tmp_path / target)
        shutil.rmtree(tmp_path / ".sanactl")
        child.stdin.write("\n")
        child.stdin.flush()
    child.communicate()
    assert child.returncode == 0
    assert killed >= 4


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


NOTES = (
    "sanactl: writing",
    "sanactl: keeping",
    "sanactl: leaving out",
)  # what a command says beside its error
READS, WRITES = ("pread", "preadv"), ("pwrite", "copy_file_range", "ftruncate", "fsync")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT], ids=lambda c: errno.errorcode[c])
@pytest.mark.parametrize("direct", [False, True], ids=["buffered", "direct"])
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("target", ["new.st", "new"])
def test_an_error_at_any_call_is_one_line_and_leaves_nothing(
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    target: str,
    task: str,
    direct: bool,
    code: int,
) -> None:
    monkeypatch.setattr(fill, "_PART", 8192)
    monkeypatch.setattr(fill, "_CHUNK", 8192)
    monkeypatch.setattr(direct_io, "DIRECT_FROM", 0 if direct else 1 << 62)
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(place / "base.st", tmp_path / "base.st")
    arguments = [*TASKS[task], "-o", target]
    names = WRITES if code != errno.EIO else READS + WRITES
    counted = [0]

    def failing(real: Callable[..., Any], at: list[int]) -> Callable[..., Any]:
        def call(*given: Any, **more: Any) -> Any:
            counted[0] += 1
            if counted[0] == at[0]:
                raise OSError(code, os.strerror(code))
            return real(*given, **more)

        return call

    at = [0]
    for name in names:
        monkeypatch.setattr(os, name, failing(getattr(os, name), at))
    assert main(arguments) == 0
    total, expected = counted[0], files(tmp_path / target)
    rng = random.Random(f"{task} {direct} {code}")
    source = (tmp_path / "base.st").read_bytes()
    for number in sorted({1, 2, total, *(rng.randrange(1, total + 1) for _ in range(5))}):
        remove(tmp_path / target)
        shutil.rmtree(tmp_path / ".sanactl", ignore_errors=True)
        capsys.readouterr()
        counted[0], at[0] = 0, number
        got = main(arguments)
        at[0] = 0
        said = capsys.readouterr().err
        assert (tmp_path / "base.st").read_bytes() == source
        there = sorted(set(os.listdir(tmp_path)) - {".sanactl"})
        if (
            target in there
        ):  # the error came when all was written: as the result is read, or its folder flushed
            assert files(tmp_path / target) == expected
            assert there == ["base.st", target]
        else:
            assert there == ["base.st"], (number, said)
            assert got == 1, (number, said)
        if got:
            lines = [line for line in said.splitlines() if not line.startswith(NOTES)]
            assert len(lines) == 1, said
            assert "Traceback" not in said and "unexpected" not in said


def test_a_limit_on_file_sizes_is_a_real_error_of_the_kernel(place: Path, tmp_path: Path) -> None:
    shutil.copyfile(place / "base.st", tmp_path / "base.st")
    for target in ("new.st", "new"):
        done = subprocess.run(
            [
                "bash",
                "-c",
                f"ulimit -f 100; trap '' XFSZ; {sys.executable} -m sanactl grow base.st --to 9 -o {target}",
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 1
        assert "limit on file sizes" in done.stderr
        assert sorted(os.listdir(tmp_path)) == ["base.st"]
