"""Without a home folder that can be written: what needs none works, what needs one says how to name another."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sanactl.errors import InputError
from tests.layouts import AB, TWO, captions_of, images, opened, parquet, tar
from tests.pictures import MIXED, write_folder

# Of a user that has no entry in the list of users, and no HOME.
NOBODY = ("unshare", "--user", "--map-user=54321")


@pytest.mark.parametrize("home", ["/proc", "file/below", "~/.cache/huggingface"])
@pytest.mark.parametrize("streaming", [False, True])
def test_a_cache_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str, streaming: bool
) -> None:
    import datasets

    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    parquet("shots/0.parquet", TWO)
    cache = home if home[0] in "/~" else str(tmp_path / home)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", f"{cache}/datasets")
    with pytest.raises(
        InputError, match=r"the cache of datasets, cannot be .*; set HF_HOME \(or HF_DATASETS_CACHE\)"
    ):
        opened("shots", streaming=streaming)
    assert sorted(os.listdir()) == ["file", "shots"]


SCRIPT = """
import sys
from sanactl.data import open_training_data, sizes
from sanactl.errors import SanactlError
sizes.REMEMBERED_FROM = 1
for name in sys.argv[1:]:
    try:
        print(open_training_data(name, seed=0, height=64, width=64, buckets=True).about)
    except SanactlError as error:
        print(error)
"""


def test_without_a_home(tmp_path: Path) -> None:
    write_folder(tmp_path / "shots", 4, MIXED)
    tar(str(tmp_path / "tars/0.tar"), {"0.png": (tmp_path / "shots/000.png").read_bytes(), "0.txt": "a"})
    parquet(str(tmp_path / "parquet/0.parquet"), TWO)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "XDG_", "HOME", "HUGGINGFACE"))}
    kept["PYTHONPATH"] = str(Path(__file__).parents[3])
    for before, home in (((), {"HOME": "/proc"}), (NOBODY, {})):
        if before and subprocess.run([*before, "true"], capture_output=True).returncode:
            continue  # no such rooms here
        done = subprocess.run(
            [*before, sys.executable, "-c", SCRIPT, "shots", "tars", "parquet"],
            cwd=tmp_path, env={**kept, **home}, capture_output=True, text=True,
        )  # fmt: skip
        shots, tars, tables = done.stdout.splitlines()
        assert shots == "4 examples of shots (images with metadata.jsonl)", done.stderr
        assert tars.startswith("1 example of tars")
        assert "HF_HOME" in tables and "parquet" not in tables
        assert sorted(os.listdir(tmp_path)) == ["parquet", "shots", "tars"]


def test_images_need_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", "/proc/datasets")
    images("shots", AB)
    assert captions_of(opened("shots")) == TWO
