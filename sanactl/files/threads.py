"""Threads that share work of one kind, and end together."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator

__all__ = ["in_threads", "processors"]


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_threads(jobs: Iterator[Callable[[], None]], workers: int) -> None:
    """Run `jobs` in threads; the first error of any stops all and is raised, as is an interrupt of this thread.

    Jobs are taken from the iterator one by one, so that a million of them cost no memory.
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
                thread.join(0.2)  # a join without end would not let an interrupt through on every system
    finally:
        stop.set()
        for thread in threads:
            if thread.ident is not None:
                thread.join()
    if errors:
        raise errors[0]
