"""Compile the kernels for a GPU that need not be there, and count registers: `compiled_kernels.py CAPABILITY SCHEMES`.

Used by `test_triton`. A row on stdout for each kernel: name, registers a thread, bytes spilled, loads of 16 bytes.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from sanactl.optim import triton_kernels as matrices
from sanactl.optim import triton_lines as lines
from sanactl.optim import triton_step as steps
from sanactl.optim import triton_vectors as vectors

OFFSETS = {steps.FP32: tl.float32, steps.LINEAR: tl.float32, steps.ZERO: tl.uint8, steps.DYNAMIC: tl.float32}
POINTERS = {
    "table": "*i64", "tile_of": "*i32", "block_of": "*i32", "program_of": "*i32", "segments": "*i32",
    **dict.fromkeys(("line_r", "line_c", "part_step", "out_step", "step", "first", "count"), "i32"), "most": "fp32",
}  # fmt: skip


def build(kernel: Any, capability: int, launch: dict[str, Any], **constants: Any) -> None:
    """Compile one kernel; all pointers are aligned, as torch's are."""
    names = [name for name in kernel.arg_names if name not in constants]
    signature = {name: POINTERS.get(name, "*fp32") for name in names} | dict.fromkeys(constants, "constexpr")
    even = [n for n in names if signature[n].startswith("*") or n == "line_c"]
    attributes = {(kernel.arg_names.index(n),): [["tt.divisibility", 16]] for n in even}
    built = triton.compile(
        ASTSource(kernel, signature, constants, attributes),
        target=GPUTarget("cuda", capability, 32),
        options=launch,
    )
    print(
        kernel.__name__,
        *(f"{n}={constants[n]}" for n in ("KIND", "CUT") if n in constants),
        *registers(built.asm["cubin"]),
        wide_loads(built.asm["ptx"]),
    )


def registers(cubin: bytes) -> tuple[str, str]:
    """Registers a thread and bytes on its stack, as `cuobjdump` of the triton package says."""
    program = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        said = subprocess.run([program, "-res-usage", file.name], capture_output=True, text=True, check=True)
    used = re.search(r"REG:(\d+) STACK:(\d+)", said.stdout)
    assert used, said.stdout
    return used[1], used[2]


def wide_loads(ptx: str) -> int:
    return len(re.findall(r"ld\.global[^\n]*\.v4", ptx))


def main(capability: int, schemes: list[str]) -> None:
    tile: dict[str, Any] = {**steps.TILE, "ALIGNED": True}
    build(matrices.square_kernel, capability, steps.LAUNCH, GT=tl.bfloat16, **tile)
    kinds = [(steps.KINDS[None if scheme == "fp32" else scheme], False) for scheme in schemes]
    for kind, cut in [*kinds, (steps.ZERO, True)]:
        offset = OFFSETS[kind]
        read = {"GT": tl.bfloat16, "OT": offset, "KIND": kind}
        build(matrices.residual_kernel, capability, steps.LAUNCH, B=2048, CUT=cut, **read, **tile)
        blocks = {"BLOCKED": 2048, "B": 2048}
        flags = {"WIDE": True, "EDGES": cut, "CUT": cut, "STOCHASTIC": True, "ALIGNED": True, "TINY": 1e-35}
        build(matrices.apply_kernel, capability, steps.WIDE_LAUNCH, PT=tl.bfloat16, **read, **flags, **blocks)
    build(matrices.edges_kernel, capability, steps.WIDE_LAUNCH, **read, **blocks)
    build(lines.segment_kernel, capability, steps.LAUNCH, SUMS=3, LINES=128, DEPTH=16)
    whole = {"SHARDED": True, "B": steps.LINES}
    for kernel in (lines.total_kernel, lines.factors_kernel, lines.combine_kernel):
        build(kernel, capability, steps.WIDE_LAUNCH, **whole)
    build(lines.verdict_kernel, capability, steps.LAUNCH, B=steps.LINES)
    values = {"GT": tl.bfloat16, "B": 1024}
    build(vectors.vector_square_kernel, capability, steps.LAUNCH, **values)
    build(vectors.vector_moment_kernel, capability, steps.LAUNCH, **values)
    build(vectors.vector_apply_kernel, capability, steps.LAUNCH, PT=tl.bfloat16, STOCHASTIC=True, **values)
    build(vectors.part_kernel, capability, steps.LAUNCH, COUNTS=True, B=1024, SUM=256)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
