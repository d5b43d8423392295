"""Errors that are not ours, as one line: the system's, memory, packages; what is left is a bug and says so."""

from __future__ import annotations

import errno
import os

import pytest

from sanactl.cli.frame.trouble import error_line
from sanactl.errors import InputError, UsageError


def failed(code: int, name: str | None = None, other: str | None = None) -> OSError:
    return OSError(code, os.strerror(code), name, None, other)


LINES = [
    (InputError("a.st: no good", hint="take b.st"), "a.st: no good; take b.st"),
    (failed(errno.ENOSPC, "a.st"), "a.st: No space left on device; free some space, or name another disk"),
    (failed(errno.EACCES, "a.st"), "a.st: Permission denied"),
    (failed(errno.EIO), "Input/output error"),
    (failed(errno.EXDEV, "a", "b"), "a -> b: Invalid cross-device link"),
    (OSError("We couldn't connect to 'https://huggingface.co'\nmore"), "We couldn't connect to 'https://huggingface.co'"),
    (MemoryError(), "out of memory"),
    (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "out of memory; a smaller --batch-size"),
    (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "out of memory"),
    (RuntimeError("CUDA error: device-side assert triggered"), "the GPU failed: CUDA error"),
    (RecursionError("maximum recursion depth exceeded"), "nested too deeply"),
    (ModuleNotFoundError("No module named 'peft.tuners'", name="peft.tuners"), "needs the package peft, which is not installed; pip install peft"),
    (ModuleNotFoundError("No module named 'PIL'", name="PIL"), "pip install pillow"),
    (ImportError("libcudart.so.12: cannot open shared object file", name="bitsandbytes"), "bitsandbytes cannot be imported: libcudart"),
    (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), "text that cannot be read or written"),
]  # fmt: skip


@pytest.mark.parametrize(("error", "line"), LINES, ids=lambda value: type(value).__name__)
def test_one_line_of_each(error: Exception, line: str) -> None:
    code, said = error_line(error, ["sample"], ["sample"])
    assert code == 1
    assert line in said
    assert "please report" not in said
    assert "\n" not in said


def test_what_is_left_is_a_bug() -> None:
    for error in (
        KeyError("x"),
        ModuleNotFoundError("No module named 'sanactl.x'", name="sanactl.x"),
        AssertionError(),
    ):
        assert "please report" in error_line(error, [], [])[1]
    assert error_line(UsageError("no"), [], []) == (2, "no")
