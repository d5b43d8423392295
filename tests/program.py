"""The program as tests run it: in this process, with records in and records out."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from sanactl.cli.app import main

# What a command says before it fails.
NOTES = tuple(
    f"sanactl: {word}" for word in ("using", "training", "encoding", "checking", "looking at", "writing")
)


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
        """Runs a command that must fail, and leave nothing behind; its one line beside `NOTES`."""
        assert not Path("pyproject.toml").exists(), "run it in an empty folder, not in the repository"
        before = snapshot(Path.cwd())
        assert self(*arguments, stdin=stdin, code=code) == []
        lines = [line for line in self.said.splitlines() if not line.startswith(NOTES)]
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


def on_terminal(
    arguments: list[str],
    cwd: Path,
    *,
    program: Sequence[str] = (sys.executable, "-m", "sanactl"),
    **variables: str,
) -> tuple[int, str]:
    """Runs the program on a terminal of 100 columns; its exit code and all that it sent there, stderr included."""
    leader, follower = pty.openpty()
    environment = {**os.environ, "COLUMNS": "100", "TERM": "xterm", "OMP_NUM_THREADS": "1", **variables}
    process = subprocess.Popen(
        [*program, *arguments],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=follower,
        stderr=follower,
        env=environment,
        preexec_fn=heed_interrupts,
    )
    os.close(follower)
    shown = b""
    with contextlib.suppress(OSError):  # how a terminal says that nobody writes to it any more
        while part := os.read(leader, 65536):
            shown += part
    os.close(leader)
    return process.wait(timeout=60), shown.decode(errors="backslashreplace")


def heed_interrupts() -> None:
    """For a new process, before it begins: one that was started in the background is told to ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
