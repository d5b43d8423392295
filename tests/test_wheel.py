"""The wheel: it builds, and in an environment of its own the program draws and judges with nothing but what it carries."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(folder), str(ROOT)]
    subprocess.run(build, check=True, cwd=folder)
    (made,) = folder.glob("sanactl-*.whl")
    return made


@pytest.mark.slow
def test_it_carries_what_the_program_reads(wheel: Path) -> None:
    """Every file of the package that git knows is in it."""
    known = subprocess.run(
        ["git", "ls-files", "sanactl"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    with zipfile.ZipFile(wheel) as archive:
        assert set(known) - set(archive.namelist()) == set()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_it_runs_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv/bin/python"
    constraints = ROOT / "constraints.txt"
    torch = next(line for line in constraints.read_text().splitlines() if line.startswith("torch=="))
    for what in (torch, str(wheel)):
        subprocess.run([python, "-m", "pip", "install", "--quiet", "-c", constraints, what], check=True)
    work = tmp_path / "work"
    work.mkdir()
    environment = {
        **{k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")},
        "PATH": f"{tmp_path / 'venv/bin'}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
    }
    pipe = "sanactl sample --limit 2 -n 2 --steps 4 < /dev/null | sanactl judge"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {pipe}"], cwd=work, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2
