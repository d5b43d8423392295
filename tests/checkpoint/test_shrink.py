"""A source that shrinks or is rewritten while it is read: one line, and no half-written output.

The file is cut short before one of the calls that read it, as a copy in its place does in its first moment.
"""

from __future__ import annotations

import errno
import io
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sanactl.bench.synthetic import TINY, synthetic_checkpoint
from sanactl.checkpoint import fill
from sanactl.checkpoint.copy import copy_folder
from sanactl.cli.app import main
from sanactl.errors import InputError
from sanactl.files import direct_io
from tests.program import NOTES, Program, snapshot

SHARD = "model/diffusion_pytorch_model-00002-of-00004.safetensors"
# what is done, and to which file of its source it happens
TASKS = {
    "grow": ("base.st", ["grow", "base.st", "--to", "7", "-o", "new.st"]),
    "interpolate": ("base.st", ["grow", "base.st", "--to", "6", "--init", "interpolate", "-o", "new"]),
    "prune": ("base.st", ["prune", "base.st", "--blocks", "0,2-3", "-o", "new.st"]),
    "folder": ("base.st", ["convert", "base.st", "-o", "new"]),
    "native": ("base.st", ["convert", "base.st", "-o", "new.pth"]),
    "cast": ("base.st", ["convert", "base.st", "--dtype", "fp32", "-o", "new.st"]),
    "inspect": ("base.st", ["inspect", "base.st"]),
    "from native": ("base.pth", ["convert", "base.pth", "-o", "new.st"]),
    "from shards": (SHARD, ["prune", "model", "--blocks", "0,2-3", "-o", "new.st"]),
    "config": ("model/config.json", ["prune", "model", "--blocks", "0,2-3", "-o", "new.st"]),
}
SAID = (*NOTES, "sanactl: writing", "sanactl: keeping", "sanactl: leaving out", "sanactl: converting")
READS = ("open", "stat", "fstat", "pread", "preadv", "copy_file_range")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shrink")
    config = {**TINY, "attention_head_dim": 16, "cross_attention_head_dim": 16, "cross_attention_dim": 32}
    synthetic_checkpoint(folder / "base.st", config, "BF16")
    assert main(["convert", str(folder / "base.st"), "-o", str(folder / "base.pth")]) == 0
    synthetic_checkpoint(folder / "model", config, "BF16", shard_size="50KB")
    assert (folder / SHARD).exists()
    return folder


@pytest.mark.parametrize("left", [8, 30_000])
@pytest.mark.parametrize("task", TASKS)
def test_a_source_that_shrinks_at_any_call(
    sources: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    task: str,
    left: int,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fill, "_PART", 8192)
    monkeypatch.setattr(fill, "_CHUNK", 8192)
    monkeypatch.setattr(direct_io, "DIRECT_FROM", 0 if left == 8 else 1 << 62)
    source, arguments = TASKS[task]
    whole = snapshot(sources)
    counted, at = [0], [0]

    def cutting(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **more: Any) -> Any:
            counted[0] += 1
            if counted[0] == at[0]:
                os.truncate(source, min(left, os.stat(source).st_size // 2))
            return real(*given, **more)

        return call

    def run(number: int) -> tuple[int, dict[str, bytes]]:
        """Runs the command on fresh sources, cut before the call of this number; its code, and the files it made."""
        for path in tmp_path.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.copytree(sources, tmp_path, dirs_exist_ok=True)
        capsys.readouterr()
        counted[0], at[0] = 0, number
        code = main(arguments)
        at[0] = 0
        return code, {name: data for name, data in snapshot(tmp_path).items() if name not in whole}

    for name in READS:
        monkeypatch.setattr(os, name, cutting(getattr(os, name)))
    monkeypatch.setattr(io, "open", cutting(io.open))
    monkeypatch.setattr("builtins.open", io.open)
    code, expected = run(0)
    assert code == 0
    total, failed = counted[0], 0
    rng = random.Random(f"{task} {left}")
    for number in sorted({*range(1, 8), *(rng.randrange(1, total + 1) for _ in range(6))}):
        code, made = run(number)
        said = capsys.readouterr().err
        if code == 0:  # all that was needed had been read
            assert made == expected
            continue
        failed += 1
        assert code == 1, (number, said)
        assert made == {}, (number, said)
        lines = [line for line in said.splitlines() if not line.startswith(SAID)]
        assert len(lines) == 1, (number, said)
        assert source in lines[0], (number, said)
        assert "unexpected" not in said, (number, said)
    assert failed


def test_a_component_that_shrinks_while_it_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "vae"
    (source / "more").mkdir(parents=True)
    (source / "config.json").write_bytes(b"{}")
    (source / "more" / "weights").write_bytes(bytes(range(256)) * 100)
    (source / "link").symlink_to("config.json")
    copy_folder(source, tmp_path / "whole")
    assert snapshot(tmp_path / "whole") == snapshot(source)
    real = os.copy_file_range

    def cut(*given: Any) -> int:
        if os.fstat(given[0]).st_size > 100:
            os.truncate(source / "more" / "weights", 100)
        return real(*given)

    monkeypatch.setattr(os, "copy_file_range", cut)
    with pytest.raises(InputError, match="weights ended early, at byte 100"):
        copy_folder(source, tmp_path / "half")
    (source / "round").symlink_to(source)
    with pytest.raises(InputError):
        copy_folder(source, tmp_path / "round")
    os.mkfifo(tmp_path / "whole" / "pipe")
    with pytest.raises(InputError, match="pipe is not a regular file"):
        copy_folder(tmp_path / "whole", tmp_path / "other")


def test_a_pipeline_is_copied_where_no_permissions_can_be_set(
    place: Path, monkeypatch: pytest.MonkeyPatch, sanactl: Program
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "chmod", refuse)
    sanactl("convert", "tiny.st", "--pipeline", "--copy", "-o", "pipe")
    assert (place / "pipe" / "vae" / "config.json").is_file()
    assert not (place / "pipe" / "vae").is_symlink()
