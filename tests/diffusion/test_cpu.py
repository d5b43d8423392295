"""Memory and threads on the CPU."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest
import torch

from sanactl.diffusion.cpu import keep_freed_memory, single_threaded

FAULTS = """
import resource, torch
from sanactl.diffusion.cpu import keep_freed_memory
def step():
    for _ in range(8):
        torch.empty(20_000_000).fill_(1.0)
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
step()
plain = faults()
assert keep_freed_memory()
step()
print(plain, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="advice to glibc's malloc")
def test_freed_memory_is_used_again() -> None:
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    plain, kept = map(int, done.stdout.split())
    # 80 MB eight times: 39 pages of 2 MiB each time at the least.
    assert plain > 200
    assert kept < plain / 4


def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert keep_freed_memory() is False


def test_threads_are_as_before() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with pytest.raises(ZeroDivisionError), single_threaded() as threads:
            assert (threads, torch.get_num_threads()) == (3, 1)
            raise ZeroDivisionError
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
