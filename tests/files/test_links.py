"""Symbolic links, and folders that may not be written."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from sanactl.bench.synthetic import synthetic_checkpoint
from sanactl.checkpoint.open import open_checkpoint
from sanactl.errors import InputError
from tests.program import Program


def test_links_to_a_checkpoint_and_between_shards_are_followed(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    real = synthetic_checkpoint(tmp_path / "store" / "base.st")
    (tmp_path / "link.st").symlink_to(real)
    assert open_checkpoint(tmp_path / "link.st").digest == open_checkpoint(real).digest
    sharded = synthetic_checkpoint(tmp_path / "sharded", shard_size="30KB")
    shard = sorted(sharded.glob("*.safetensors"))[1]
    shard.rename(tmp_path / "store" / "blob")  # the Hub's cache keeps every file so
    shard.symlink_to("../store/blob")
    assert open_checkpoint(sharded).num_blocks == 4


@pytest.mark.parametrize("points_to", ["nowhere.st", "self.st"])
def test_a_link_to_nothing_or_to_itself_is_one_line(tmp_path: Path, points_to: str) -> None:
    (tmp_path / "self.st").symlink_to(tmp_path / points_to)
    with pytest.raises(InputError, match=r"self\.st") as caught:
        open_checkpoint(tmp_path / "self.st")
    assert "\n" not in str(caught.value)


def test_a_link_in_the_place_of_the_target_is_kept_and_never_written_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sanactl: Program
) -> None:
    monkeypatch.chdir(tmp_path)
    synthetic_checkpoint("base.st")
    Path("precious").write_text("precious")
    Path("new.st").symlink_to("precious")
    sanactl("prune", "base.st", "--blocks", "0", "-o", "new.st", code=2)
    assert "new.st already exists" in sanactl.said
    sanactl("prune", "base.st", "--blocks", "0", "-o", "new.st", "--force")
    assert Path("precious").read_text() == "precious"
    assert not Path("new.st").is_symlink()


_AS_NOBODY = """
import contextlib, os, sys
from sanactl.cli.app import main
import numpy, rich.console, sanactl.cli.grow, sanactl.cli.frame.surgery, sanactl.surgery.grow, sanactl.checkpoint.generate
import sanactl.checkpoint.layouts.pth, sanactl.cli.frame.streams, statistics, ctypes, rich.progress, zipfile
# Whatever is imported on the way: that other user may not be able to read where this is installed.
with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
    main([*sys.argv[1:], "--dry-run"])
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
sys.exit(main(sys.argv[1:]))
"""


def test_a_folder_that_may_not_be_written_is_one_line() -> None:
    # pytest's own folders cannot be entered by another user
    tmp_path = Path(tempfile.mkdtemp())
    synthetic_checkpoint(tmp_path / "base.st")
    tmp_path.chmod(0o555)
    try:
        for target in ("new.st", "new"):
            done = subprocess.run(
                [sys.executable, "-c", _AS_NOBODY, "grow", "base.st", "--to", "6", "-o", target],
                cwd=tmp_path,
                capture_output=True,
                text=True,
                stdin=subprocess.DEVNULL,
            )
            assert done.returncode == 1
            assert "no permission to write" in done.stderr
            assert [x for x in done.stderr.splitlines() if not x.startswith("sanactl: leaving out")][1:] == []
            assert os.listdir(tmp_path) == ["base.st"]
    finally:
        tmp_path.chmod(0o755)
        shutil.rmtree(tmp_path)
