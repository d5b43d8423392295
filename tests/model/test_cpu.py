"""Memory and threads on the CPU."""

from __future__ import annotations

import platform
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
import torch

from sanactl.model.cpu import Workers, keep_freed_memory, return_freed_memory, single_threaded

FAULTS = """
import resource, torch
from sanactl.model.cpu import keep_freed_memory
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


GAPS = """
import sys, psutil, torch
from sanactl.model.cpu import keep_freed_memory, return_freed_memory
assert {"keep": keep_freed_memory, "return": return_freed_memory}[sys.argv[1]]()
tensors = [torch.ones(1 << 19) for _ in range(100)]
full = psutil.Process().memory_info().rss
del tensors[::2]
print((full - psutil.Process().memory_info().rss) >> 20)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="advice to glibc's malloc")
@pytest.mark.parametrize(("way", "least", "most"), [("keep", 0, 10), ("return", 90, 110)])
def test_gaps_between_tensors(way: str, least: int, most: int) -> None:
    """Every other one of 100 tensors of 2 MiB is freed."""
    done = subprocess.run([sys.executable, "-c", GAPS, way], capture_output=True, text=True, check=True)
    assert least <= int(done.stdout) <= most


def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert keep_freed_memory() is False
    assert return_freed_memory() is False


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


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """As many threads as torch has in a test."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_results_come_in_the_order_of_the_pieces(threads: int) -> None:
    def late(piece: int) -> tuple[int, int, bool]:
        time.sleep(0.02 * (piece % 3 == 0))
        return piece, torch.get_num_threads(), torch.is_grad_enabled()

    with Workers() as workers, torch.no_grad():
        found = list(workers.map(late, range(10)))
    assert [piece for piece, _, _ in found] == list(range(10))
    assert {count for _, count, _ in found} == {1}
    assert torch.get_num_threads() == threads


def test_pieces_are_taken_as_they_are_needed_and_no_more_at_once_than_allowed(threads: int) -> None:
    taken, running, most = [], [0], [0]
    lock = threading.Lock()

    def pieces() -> Iterator[int]:
        for piece in range(12):
            taken.append(piece)
            yield piece

    def count(piece: int) -> int:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.01)
        with lock:
            running[0] -= 1
        return piece

    with Workers() as workers:
        for at_once in (None, 1, 2):
            taken.clear()
            most[0] = 0
            limit = threads + 1 if at_once is None else at_once
            for done in workers.map(count, pieces(), at_once=at_once):
                assert len(taken) <= done + limit + 1
            assert taken == list(range(12))
            assert most[0] <= min(threads, limit)


def test_an_error_in_a_piece_comes_out_and_leaves_torch_its_threads(threads: int) -> None:
    def fails(piece: int) -> int:
        if piece == 2:
            raise ZeroDivisionError
        return piece

    found: list[int] = []
    with pytest.raises(ZeroDivisionError), Workers() as workers:
        found.extend(workers.map(fails, range(5)))
    assert found == [0, 1]
    assert torch.get_num_threads() == threads
