"""Running jobs in several threads."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator

__all__ = ["in_threads", "processors"]


def processors() -> int:
    """The number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_threads(jobs: Iterator[Callable[[], None]], workers: int) -> None:
    """Run `jobs` in `workers` threads. The first error, or an interrupt of this thread, stops all and is raised.

    Jobs are taken from the iterator one by one, so even a million of them need no memory.
    """
    lock, stop, errors = threading.Lock(), threading.Event(), list[Exception]()

    def work() -> None:
        while not stop.is_set():
            try:
                with lock:
                    job = next(jobs, None)
                if job is None:
                    return
                job()
            except Exception as error:
                errors.append(error)
                stop.set()

    threads = [threading.Thread(target=work, daemon=True) for _ in range(workers)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(0.2)  # on some systems a join without a timeout would block interrupts
    finally:
        stop.set()
        for thread in threads:
            if thread.ident is not None:
                thread.join()
    if errors:
        raise errors[0]
