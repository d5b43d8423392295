"""Running the repository's tests with one mark; each test gives a row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sanactl.bench.rows import Rows

__all__ = ["run_marked_tests"]


class _Recorder:
    """A pytest plugin that adds a row for each test that ran or failed, with the first line of its error."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    def pytest_runtest_logreport(self, report: Any) -> None:
        # Setup and teardown count where they did not pass; a skipped test is skipped in its setup.
        if report.when != "call" and report.passed:
            return
        fault = None
        if not report.passed:
            crash = getattr(report.longrepr, "reprcrash", None)
            said = crash.message if crash else str(report.longrepr)
            fault = " ".join(said.split())[:300]
        self.rows.add(
            "tests of GPUs",
            test=report.nodeid.replace("tests/", "", 1),
            outcome=report.outcome,
            seconds=round(report.duration, 2),
            fault=fault,
        )


def run_marked_tests(rows: Rows, mark: str) -> int:
    """Run `pytest -m MARK` in this process, on the files that name the mark; returns pytest's exit code.

    Other files may need packages that are not installed. For the same reason, pyproject.toml's options are ignored.
    """
    try:
        import pytest
    except ImportError:
        rows.add("tests of GPUs", test=mark, outcome="left out", fault="pytest is not installed")
        return 0
    root = Path(__file__).parents[2]
    files = [
        str(f) for f in sorted((root / "tests").rglob("test_*.py")) if f"mark.{mark}" in f.read_text("utf-8")
    ]
    options = ["-q", "-m", mark, "--import-mode=importlib", "-p", "no:cacheprovider", "-o", "addopts="]
    return int(pytest.main([*files, f"--rootdir={root}", *options], plugins=[_Recorder(rows)]))
