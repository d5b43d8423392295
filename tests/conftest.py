"""What tests share: one thread a process, a small checkpoint with real weights, the program run in this process."""

from __future__ import annotations

import os

# Before torch is imported: results must not depend on the machine's cores, and test processes share them.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sanactl.cli.app import main


@contextlib.contextmanager
def stdin_of(text: str) -> Iterator[None]:
    """`text` as this process's stdin, as `sanactl ... <file` gives it."""
    before = os.dup(0)
    with tempfile.TemporaryFile("w+", encoding="utf-8") as file:
        file.write(text)
        file.seek(0)
        os.dup2(file.fileno(), 0)
        try:
            yield
        finally:
            os.dup2(before, 0)
            os.close(before)


class Program:
    """sanactl, run in this process as a command line would run it, with nothing on stdin unless it is given."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.said = ""

    def __call__(self, *arguments: str | Path, stdin: str | None = None, code: int = 0) -> list[Any]:
        """Runs a command that must end with `code`; the records it wrote. `said` has what went to stderr."""
        self._capsys.readouterr()
        given = stdin_of(stdin) if stdin is not None else contextlib.nullcontext()
        with given:
            got = main([str(a) for a in arguments])
        captured = self._capsys.readouterr()
        self.said = captured.err
        assert got == code, f"exit code {got}: {captured.err}"
        assert "Traceback" not in captured.err
        return [json.loads(line) for line in captured.out.splitlines()]

    def fails(self, *arguments: str | Path, code: int = 1, stdin: str | None = None) -> str:
        """Runs a command that must fail, and leave nothing behind; its one line."""
        before = snapshot(Path.cwd())
        assert self(*arguments, stdin=stdin, code=code) == []
        lines = [line for line in self.said.splitlines() if not line.startswith("sanactl: using")]
        assert len(lines) == 1, self.said
        assert snapshot(Path.cwd()) == before, "a failed command left something behind"
        return lines[0]


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file of a folder but its journal."""
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and ".sanactl" not in p.parts
    }


@pytest.fixture(autouse=True)
def _no_stdin() -> Iterator[None]:
    """A test's stdin is empty and no pipe, whatever the test runner's is."""
    before = os.dup(0)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    yield
    os.dup2(before, 0)
    os.close(before)


@pytest.fixture
def sanactl(capsys: pytest.CaptureFixture[str]) -> Program:
    """The program."""
    return Program(capsys)


@pytest.fixture(scope="session")
def tiny_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three blocks of the built-in base: small, and unlike random weights it draws something."""
    folder = tmp_path_factory.mktemp("tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["init", "shapes"]) == 0
        assert main(["prune", "base.st", "--blocks", "0,4,9", "-o", "tiny.st"]) == 0
    return folder / "tiny.st"


@pytest.fixture
def place(tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with tiny.st in it."""
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(tiny_file, tmp_path / "tiny.st")
    return tmp_path
