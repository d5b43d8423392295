"""How a process ends: with the exit code of its work, whatever Python's last steps do."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# An object that is deleted in Python's last steps and aborts there, as threads of gloo sometimes do.
PROGRAM = """
import atexit, os
from sanactl.cli.frame.process import end

class Last:
    def __init__(self, abort=os.abort):
        self.abort = abort
    def __del__(self):
        self.abort()

last = Last()
atexit.register(print, "an exit handler", flush=False)
print("the work is done")
end(3)
"""


@pytest.mark.parametrize(("processes", "code"), [("2", 3), ("1", -6)])
def test_one_of_several_processes_ends_at_once(processes: str, code: int) -> None:
    """After exit handlers and with all that was printed. A process alone ends in Python's way."""
    environment = {**os.environ, "WORLD_SIZE": processes}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    if processes == "2":
        assert done.stdout == "the work is done\nan exit handler\n"
