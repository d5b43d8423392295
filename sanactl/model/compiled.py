"""`torch.compile` of a transformer's blocks, kept on disk between processes by torch's own cache."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from sanactl.errors import InputError, UsageError, without_stop

__all__ = ["check_compiler", "compile_blocks", "compiling"]

_CACHE = "TORCHINDUCTOR_CACHE_DIR"


def check_compiler(device: torch.device) -> None:
    """See that there is what `torch.compile` needs, before models are loaded.

    Raises:
        UsageError: there is no C++ compiler, or on a GPU no Triton.
    """
    import shutil

    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        found = shutil.which(get_cpp_compiler()) is not None
    except RuntimeError:  # torch's InvalidCxxCompiler
        found = False
    if not found:
        raise UsageError(
            "--compile needs a C++ compiler, and there is none",
            hint="install g++, or name one by CXX; or leave out --compile",
        )
    if device.type == "cuda":
        from torch.utils._triton import has_triton

        if not has_triton():
            raise UsageError(
                "--compile needs Triton on a GPU", hint="pip install triton; or leave out --compile"
            )


def compile_blocks(transformer: Any) -> None:
    """Compile each block in place. All blocks have the same code, so it is compiled once, in a part of the whole's time.

    torch keeps what it compiled in TORCHINDUCTOR_CACHE_DIR, here by default ~/.cache/sanactl/inductor.
    """
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    os.environ.setdefault(_CACHE, str(Path(base) / "sanactl" / "inductor"))
    for block in transformer.transformer_blocks:
        block.compile(dynamic=False)


@contextlib.contextmanager
def compiling() -> Iterator[None]:
    """Turn an error of the compiler into one line.

    Raises:
        InputError: says what the compiler said.
    """
    from torch._dynamo.exc import TorchDynamoException

    try:
        yield
    except TorchDynamoException as error:
        lines = [" ".join(line.split()) for line in str(error).splitlines() if line.strip()]
        said = without_stop(lines[0][:240]) if lines else type(error).__name__
        raise InputError(f"--compile: {said}", hint="leave out --compile") from error
