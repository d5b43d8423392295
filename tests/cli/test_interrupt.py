"""Runs that are killed in the middle end as undisturbed ones do; readers that leave, and pipes."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sanactl.cli.app import main

SANACTL = [sys.executable, "-m", "sanactl"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, to its end."""
    return subprocess.run(
        [*SANACTL, *arguments],
        cwd=folder,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
    )


def killed(folder: Path, sent: signal.Signals, ready: str, *arguments: str) -> int:
    """Runs a command until a file that matches `ready` appears, then kills it; its exit code."""
    process = subprocess.Popen(
        [*SANACTL, *arguments],
        cwd=folder,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + 200
    while not list(folder.glob(ready)) and process.poll() is None and time.monotonic() < until:
        time.sleep(0.005)
    assert process.poll() is None, "it ended before it could be killed"
    process.send_signal(sent)
    return process.wait(timeout=60)


def digests(folder: Path, pattern: str) -> dict[str, str]:
    """SHA-256 of each file that matches, by its path within the folder."""
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.glob(pattern))
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Undisturbed runs of `sample` and `finetune` from a small random checkpoint."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["init", "shapes", "--scratch", "--blocks", "2", "-o", "tiny.st"]) == 0
    assert run(folder, "sample", "tiny.st", *SAMPLE).returncode == 0
    assert run(folder, "finetune", "tiny.st", *FINETUNE).returncode == 0
    return folder


SAMPLE = ["--prompts", "shapes", "--limit", "8", "-n", "8", "--steps", "8", "-b", "8", "-o", "out"]
FINETUNE = ["--steps", "30", "-b", "8", "--save-every", "3", "-o", "trained.st"]


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_sample_goes_on_where_it_was(whole: Path, tmp_path: Path, sent: signal.Signals) -> None:
    (tmp_path / "tiny.st").write_bytes((whole / "tiny.st").read_bytes())
    code = killed(tmp_path, sent, "out/00001/samples/*.png", "sample", "tiny.st", *SAMPLE)
    assert code == (130 if sent == signal.SIGTERM else -signal.SIGKILL)
    there = digests(tmp_path, "out/*/samples/*.png")
    assert 0 < len(there) < 64
    done = run(tmp_path, "sample", "tiny.st", *SAMPLE)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 64
    assert digests(tmp_path, "out/*/samples/*.png") == digests(whole, "out/*/samples/*.png")


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_finetune_goes_on_where_it_was(whole: Path, tmp_path: Path, sent: signal.Signals) -> None:
    (tmp_path / "tiny.st").write_bytes((whole / "tiny.st").read_bytes())
    code = killed(tmp_path, sent, ".trained.st.training/step-00000006", "finetune", "tiny.st", *FINETUNE)
    assert code == (130 if sent == signal.SIGTERM else -signal.SIGKILL)
    assert not (tmp_path / "trained.st").exists()
    done = run(tmp_path, "finetune", "tiny.st", *FINETUNE)
    assert done.returncode == 0, done.stderr
    assert "resuming at step" in done.stderr
    assert digests(tmp_path, "trained.st") == digests(whole, "trained.st")
    assert not list(tmp_path.glob(".trained.st.training/*"))


def test_a_reader_that_leaves_is_no_failure(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.st").write_bytes((whole / "tiny.st").read_bytes())
    command = " ".join([*SANACTL, "sample", "tiny.st", *SAMPLE])
    done = subprocess.run(
        ["bash", "-c", f"{command} </dev/null | head -1; echo ${{PIPESTATUS[0]}}"],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=240,
    )
    first, code = done.stdout.splitlines()
    assert json.loads(first)["kind"] == "image"
    assert code == "0"
    assert "Traceback" not in done.stderr


def test_an_empty_pipe_is_a_failure(tmp_path: Path) -> None:
    command = " ".join(SANACTL)
    done = subprocess.run(
        ["bash", "-c", f"{command} grow gone.st --to 4 | {command} prune --blocks 0"],
        cwd=tmp_path,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 2
    assert not list(tmp_path.glob("*.st"))
