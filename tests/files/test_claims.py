"""Claims of two processes on the same pieces."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

from sanactl.files.claims import Claims

HOLD = """
import sys, threading
from pathlib import Path
from sanactl.files.claims import Claims
with Claims(Path(sys.argv[1])).held([b"1--piece"], threading.Event()):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_piece_is_of_one_process_until_it_ends(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    claims, stop = Claims(path), threading.Event()
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with claims.held([b"2--piece"], stop):  # another piece is free
            assert not claims._lock(int.from_bytes(b"1--piece", "big") >> 2)
        other.kill()
    with claims.held([b"2--piece", b"1--piece"], stop):
        pass


def test_no_locks_are_no_obstacle(tmp_path: Path) -> None:
    with Claims(tmp_path / "no" / "such").held([b"1--piece"], threading.Event()):
        pass
